from pathlib import Path

import pytest
import yaml

from prewarm.api.image_cache import decode_image_cache

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_says_what_it_is_for_and_is_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = next(line for line in text.splitlines() if line)
    caches = [document for document in yaml.safe_load_all(text) if document["kind"] == "ImageCache"]
    assert first.startswith("# ")
    assert [decode_image_cache(cache).error for cache in caches] == [""]


def test_every_promise_of_the_use_cases_is_tested() -> None:
    tested = (EXAMPLES.parent / "e2e" / "test_use_cases.py").read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES.glob("[pu]*-*.yaml") if f'"{path.stem}' not in tested] == []
