import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from e2e.cluster import binaries
from e2e.cluster.binaries import Family, ensure
from e2e.cluster.gobuild import exclusive
from e2e.cluster.gomodules import GoModule, ToolError
from e2e.cluster.processes import GuardedProcess, is_running, wait_until

# Stands in for Go: answers as go1.N.0 and "builds" by writing a file, counting its builds.
FAKE_GO = """#!{python}
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
command = sys.argv[1]
if command == "env":
    print((here / "version").read_text())
elif command == "list" and "-deps" in sys.argv:
    print("example.org/dependency")
elif command == "build":
    with (here / "builds").open("a") as log:
        log.write("build\\n")
    print("example.org/dependency", file=sys.stderr)
    if (here / "slow").exists():
        (here / "pid").write_text(str(os.getpid()))
        time.sleep(600)
    if (here / "broken").exists():
        sys.exit("x.go:1: undefined: y")
    pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_text("binary")
"""


class FakeGo:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        program = directory / "go"
        program.write_text(FAKE_GO.format(python=sys.executable))
        program.chmod(0o755)
        self.version("go1.26.0")

    def version(self, text: str) -> None:
        (self.directory / "version").write_text(text)

    def break_source(self) -> None:
        (self.directory / "broken").touch()

    @property
    def builds(self) -> int:
        log = self.directory / "builds"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def never_finish(self) -> None:
        (self.directory / "slow").touch()

    async def building(self) -> int:
        """Wait for a build and return its process id."""
        pid = self.directory / "pid"
        await wait_until(lambda: pid.exists() and bool(pid.read_text()), timeout_seconds=30)
        return int(pid.read_text())


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fake = FakeGo(tmp_path / "go-bin")
    monkeypatch.setenv("PATH", str(fake.directory))
    return fake


@pytest.fixture
def module(tmp_path: Path) -> GoModule:
    directory = tmp_path / "helm"
    directory.mkdir()
    (directory / "go.mod").write_text("module m\n\ngo 1.26\n\ntool example.org/cmd/helm\n")
    (directory / "go.sum").write_text("")
    return GoModule(directory)


def test_a_second_use_builds_nothing(go: FakeGo, module: GoModule) -> None:
    first = ensure(Family.HELM, module)
    assert ensure(Family.HELM, module) == first
    assert (first / "helm").read_text() == "binary"
    assert go.builds == 1


def test_another_go_version_or_module_is_another_build(go: FakeGo, module: GoModule) -> None:
    first = ensure(Family.HELM, module)
    go.version("go1.26.1")
    second = ensure(Family.HELM, module)
    (module.directory / "go.sum").write_text("changed")
    assert len({first, second, ensure(Family.HELM, module)}) == 3


def test_builds_that_nobody_used_for_a_month_go(go: FakeGo, module: GoModule) -> None:
    first = ensure(Family.HELM, module)
    go.version("go1.26.1")
    second = ensure(Family.HELM, module)
    os.utime(first, (0, 0))
    go.version("go1.26.2")
    third = ensure(Family.HELM, module)
    assert [path.exists() for path in (first, second, third)] == [False, True, True]


def test_a_failed_build_leaves_nothing_and_says_what_the_compiler_said(go: FakeGo, module: GoModule) -> None:
    go.break_source()
    with pytest.raises(ToolError, match="undefined: y"):
        ensure(Family.HELM, module)
    assert not list(binaries.cache_directory().glob("bin/helm-*"))


def test_what_was_built_is_used_where_go_is_gone(
    go: FakeGo, module: GoModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = ensure(Family.HELM, module)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ensure(Family.HELM, module) == built


def test_without_go_one_line_says_what_to_do(module: GoModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"^helm is not built yet .* install Go$"):
        ensure(Family.HELM, module)


def test_two_builds_at_once_build_once(go: FakeGo, module: GoModule) -> None:
    results: list[Path] = []
    builders = [threading.Thread(target=lambda: results.append(ensure(Family.HELM, module))) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(results) == 3
    assert len(set(results)) == 1
    assert go.builds == 1


def test_a_lock_is_free_again_when_its_holder_was_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from e2e.cluster.gobuild import exclusive\n"
        f"with exclusive(Path({str(lock)!r})):\n    print('held', flush=True); time.sleep(600)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        holder.wait()
        with exclusive(lock):
            pass


# Builds as ControlPlane.start does: beside a running event loop.
BUILDER = """
import asyncio
from e2e.cluster.control_plane import ControlPlane
async def main():
    async with ControlPlane.start():
        pass
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_an_interrupted_build_ends_with_its_parent(go: FakeGo, number: signal.Signals) -> None:
    go.never_finish()
    root = Path(__file__).parents[2]
    parent = GuardedProcess.start(
        "builder", [sys.executable, "-c", BUILDER], go.directory / "log", os.environ | {"PYTHONPATH": str(root)}
    )
    build = await go.building()
    parent.signal(number)
    await wait_until(lambda: not parent.running, timeout_seconds=20)
    await wait_until(lambda: not is_running(build), timeout_seconds=20)


def test_a_program_on_the_path_is_used_instead_of_building(go: FakeGo) -> None:
    helm = go.directory / "helm"
    helm.write_text("")
    helm.chmod(0o755)
    assert binaries.helm() == helm
    assert go.builds == 0
