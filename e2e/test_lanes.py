"""What a person sees on a machine that lacks something."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_CLUSTER = "e2e/cluster/test_fixtures.py::test_a_namespace_is_fresh_and_admits_pods"


def run_one_test(tmp_path: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a test that needs a cluster, on a machine with an empty cache and no Go."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", NEEDS_CLUSTER],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_without_a_cluster_the_lane_is_skipped_and_says_why(tmp_path: Path) -> None:
    done = run_one_test(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "no cluster to test against: kubernetes is not built yet and there is no Go on the PATH" in done.stdout


def test_where_a_cluster_is_required_its_absence_fails(tmp_path: Path) -> None:
    done = run_one_test(tmp_path, PREWARM_TEST_REQUIRE_CLUSTER="1")
    assert done.returncode == 1, done.stdout
    assert "install Go" in done.stdout


def test_kind_without_its_programs_says_which_one(tmp_path: Path) -> None:
    done = run_one_test(tmp_path, PREWARM_TEST_CLUSTER="kind")
    assert "no cluster to test against: kind is not on the PATH" in done.stdout + done.stderr


def test_a_contradiction_ends_before_any_test(tmp_path: Path) -> None:
    done = run_one_test(tmp_path, PREWARM_TEST_CLUSTER="mine")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PREWARM_TEST_CLUSTER='mine': expected local or kind" in done.stderr


def test_setup_names_the_python_that_it_needs(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/setup", checkout / ".ci/setup")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "head"):
        (programs / name).symlink_to(shutil.which(name) or name)
    old = programs / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        [checkout / ".ci/setup"], env={"PATH": str(programs)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "prewarm needs Python 3.11 or newer on the PATH; found: Python 3.9.2"
    assert not os.path.lexists(checkout / ".venv")
