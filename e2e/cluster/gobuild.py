"""Runs `go build` for a module's tools, showing what it is at: it takes minutes from nothing."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from e2e.cluster.gomodules import GoModule, ToolError
from e2e.cluster.processes import guarded

_PLAIN_INTERVAL_SECONDS = 15.0
_ERROR_LINES = 12
_PACKAGE = re.compile(r"[\w./~+-]+")
_NAMES = {"go.etcd.io/etcd/server/v3": "etcd"}
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(bar_width=24),
    MofNCompleteColumn(),
    TextColumn("{task.fields[note]}", style="dim"),
)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock file; a second holder waits. The kernel lets go of it when its holder ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another build ({lock})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(slots=True)
class Build:
    """One build of all tools of a module into `target`."""

    go: Path
    module: GoModule
    linker_flags: str
    target: Path

    def run(self) -> None:
        """Build.

        Raises:
            ToolError: the build failed; the message holds the end of what Go said.
        """
        tools = self.module.tools()
        title = self.module.directory.name
        with _Display(f"{title}: looking for modules", None) as display:
            # What a cold build compiles; counting it also downloads the modules.
            packages = len(self._stream(["list", "-mod=readonly", "-deps", *tools], display))
        output = self.target / binary_name(tools[0]) if len(tools) == 1 else f"{self.target}/"
        with _Display(f"{title}: compiling", packages) as display:
            arguments = [
                "build",
                "-mod=readonly",
                "-v",
                "-trimpath",
                "-ldflags",
                self.linker_flags,
                "-o",
                str(output),
                *tools,
            ]
            self._stream(arguments, display)

    def _stream(self, arguments: list[str], display: "_Display") -> list[str]:
        """Run a go command and return the packages that it named.

        It runs in a process group of its own, which is ended with us, so that an interrupted build leaves nothing.
        """
        packages: list[str] = []
        said: deque[str] = deque(maxlen=_ERROR_LINES)
        environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
        with subprocess.Popen(
            guarded([self.go, *arguments]),
            cwd=self.module.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as process:
            try:
                for line in process.stdout or ():
                    if line.startswith("go: downloading "):
                        display.downloaded(line.split()[2])
                    elif _PACKAGE.fullmatch(line.strip()):
                        packages.append(line.strip())
                        display.compiled(len(packages), packages[-1])
                    else:
                        said.append(line.rstrip())
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode != 0:
            words = "\n".join(f"    {line}" for line in said)
            raise ToolError(f"go {arguments[0]} failed in {self.module.directory}:\n{words}")
        return packages


def binary_name(package: str) -> str:
    """Return the name of the program that a package builds."""
    return _NAMES.get(package, package.rsplit("/", 1)[-1])


class _Display:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total
        self._started = self._printed = time.monotonic()
        self._modules = 0
        console = Console(stderr=True)
        self._bar = (
            Progress(SpinnerColumn(), *_COLUMNS, TimeElapsedColumn(), console=console) if console.is_terminal else None
        )
        self._task = self._bar.add_task(title, total=total, note="") if self._bar else TaskID(0)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        elif self._total:
            print(f"{self._title}: done in {self._elapsed()}", file=sys.stderr, flush=True)

    def downloaded(self, module: str) -> None:
        """Show that Go fetches a module."""
        self._modules += 1
        self._show(0, f"downloading module {self._modules}, {module}")

    def compiled(self, count: int, package: str) -> None:
        """Show that `count` packages are done."""
        self._show(count if self._total else 0, package if self._total else "")

    def _show(self, count: int, note: str) -> None:
        if self._bar:
            self._bar.update(self._task, completed=count, note=note)
        elif time.monotonic() - self._printed >= _PLAIN_INTERVAL_SECONDS:
            self._printed = time.monotonic()
            done = f"{count} of at most {self._total} packages, " if self._total else ""
            print(f"{self._title}: {self._elapsed()}, {done}{note}", file=sys.stderr, flush=True)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes}m{seconds:02d}s"
