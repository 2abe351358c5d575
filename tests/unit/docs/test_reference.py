import re
from pathlib import Path

import pytest

from prewarm.cli import reference
from prewarm.cli.reference import attribute_docs, main, reference_files
from prewarm.controller.settings import Settings
from prewarm.model.outcomes import Outcome
from prewarm.model.plans import SkipReason

ROOT = Path(__file__).parents[3]


def test_pages_in_the_repository_say_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--check"])
    assert (code, capsys.readouterr().err) == (0, "")


def test_check_names_the_page_that_drifted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], tmp_path) == 0
    page = tmp_path / "docs/reference/settings.md"
    page.write_text(page.read_text(encoding="utf-8").replace("PREWARM_CLUSTER_PULLS", "PREWARM_PULLS"), "utf-8")
    assert main(["--check"], tmp_path) == 1
    assert "docs/reference/settings.md" in capsys.readouterr().err


def test_unknown_arguments_write_nothing(tmp_path: Path) -> None:
    assert main(["--verbose"], tmp_path) == 2
    assert not list(tmp_path.iterdir())


def test_every_setting_has_a_row_with_words() -> None:
    rows = re.findall(r"^\| `(PREWARM_[A-Z_]+)` \| .+ \| .+ \| \S.* \|$", reference.settings_reference(), re.MULTILINE)
    assert rows == [f"PREWARM_{name.upper()}" for name in Settings.model_fields]


@pytest.mark.parametrize("reason", [*Outcome, *SkipReason])
def test_every_reason_has_a_row(reason: str) -> None:
    assert re.search(rf"^\| `{reason}` \| \S", reference.reasons_reference(), re.MULTILINE)


def test_metrics_show_closed_label_sets_and_no_open_ones() -> None:
    page = reference.metrics_reference()
    row = next(line for line in page.splitlines() if line.startswith("| `prewarm_container_starts_total`"))
    assert all(f"`{outcome}`" in row for outcome in Outcome)
    labels = set(re.findall(r"^\| `prewarm_\w+` \| \w+ \| `(\w+)`", page, re.MULTILINE))
    assert labels.isdisjoint({"image", "pod", "digest", "node"})


def test_commands_show_their_options() -> None:
    page = reference_files()["docs/reference/cli.md"]
    assert "## `prewarm plan`" in page
    assert "--set-image" in page


def test_docstrings_belong_to_the_assignment_above_them() -> None:
    source = 'class A:\n    X = 1\n    """First\n    words."""\n    Y = 2\n    Z: int = 3\n    """Last."""\n'
    assert attribute_docs(source, "A") == {"X": "First words.", "Z": "Last."}


@pytest.mark.parametrize("page", ["settings", "metrics", "names", "reasons"])
def test_all_rows_of_a_table_have_its_columns(page: str) -> None:
    columns = 0
    for line in (ROOT / "docs/reference" / f"{page}.md").read_text(encoding="utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("| ") else 0
        columns = columns or cells if cells else 0
        assert cells == columns, line
