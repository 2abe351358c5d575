"""The controller's image: what can be said of it without a container engine."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from prewarm.cli.app import execute

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
GLIBC = 36
"""Of Debian 12, the oldest release that the base image was ever built on with this Python: 2.36."""


def python() -> tuple[int, int]:
    """Version in the base image."""
    (stages,) = {tuple(match) for match in re.findall(r"^FROM python:(\d+)\.(\d+)-slim", DOCKERFILE, re.MULTILINE)}
    return int(stages[0]), int(stages[1])


def needed() -> Iterator[dict[str, Any]]:
    """Locked packages that the image holds."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    by_name = {package["name"]: package for package in packages}
    seen, waiting = set(), ["prewarm"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [dependency["name"] for dependency in by_name[name].get("dependencies", ())]
        if name != "prewarm":
            yield by_name[name]


def tags(architecture: str) -> set[Tag]:
    """What the base image can install on an architecture."""
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(GLIBC, 4, -1)]
    platforms += [f"manylinux2014_{architecture}", f"linux_{architecture}"]
    return {*cpython_tags(python(), platforms=platforms), *compatible_tags(python(), platforms=platforms)}


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_locked_package_has_a_wheel(architecture: str) -> None:
    """The slim base image has no compiler."""
    fitting = tags(architecture)
    lacking = []
    for package in needed():
        names = [wheel["url"].rpartition("/")[2] for wheel in package.get("wheels", ())]
        if not any(fitting & parse_wheel_filename(name)[3] for name in names):
            lacking.append(package["name"])
    assert lacking == []
    assert len(list(needed())) > 20


def test_it_runs_as_a_number_and_not_as_root() -> None:
    """Kubernetes checks runAsNonRoot by the number; a name would be refused."""
    users = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert int(users[-1][0]) > 0


def test_it_is_not_bound_to_one_architecture_and_starts_no_shell() -> None:
    assert "--platform" not in DOCKERFILE
    assert 'ENTRYPOINT ["prewarm"]' in DOCKERFILE
    assert re.search(r"(amd64|x86_64|arm64|aarch64)", DOCKERFILE) is None


def test_nothing_is_written_beside_the_code() -> None:
    """The root file system is read-only."""
    assert "PYTHONDONTWRITEBYTECODE=1" in DOCKERFILE


def test_it_can_remove_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["remove-images", "--help"]) == 0
    assert capsys.readouterr().out
