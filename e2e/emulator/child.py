"""The emulator as a child process, so that it never shares a loop with what is measured."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.processes import GuardedProcess, ProcessError, log_tail
from e2e.emulator.__main__ import READY_LINE

_POLL_SECONDS = 0.1


class PullRecord(msgspec.Struct, rename="camel", frozen=True):
    """A line of the emulated kubelets' own account of pulls."""

    node: str
    uid: str
    image: str
    finished_at: float
    downloaded_bytes: int
    error: str = ""


class EmulatorProcess:
    """`python -m e2e.emulator` beside a control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._process: GuardedProcess | None = None

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            ProcessError: it does not run.
        """
        if self._process is None:
            raise ProcessError("the emulator does not run")
        return self._process.pid

    @property
    def pull_log(self) -> Path:
        """Where the emulated kubelets write down their pulls."""
        return self._plane.directory / "pulls.jsonl"

    async def start(self, options: Mapping[str, object], seconds: float) -> None:
        """Start it with options of its command line, and wait until the nodes exist and present pods are known.

        Raises:
            ProcessError: it ended.
            TimeoutError: it was not ready in time.
        """
        given = {"kubeconfig": self._plane.kubeconfig, "pull-log": self.pull_log, **options}
        arguments = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        log = self._plane.logs / "emulator.log"
        self._process = GuardedProcess.start("emulator", [sys.executable, "-m", "e2e.emulator", *arguments], log)
        async with asyncio.timeout(seconds):
            while READY_LINE not in log_tail(log):
                self._process.check()
                await asyncio.sleep(_POLL_SECONDS)

    def pulls(self) -> list[PullRecord]:
        """All pulls so far, by the emulated kubelets' own account."""
        if not self.pull_log.exists():
            return []
        complete = self.pull_log.read_bytes().rpartition(b"\n")[0].splitlines()
        return [msgspec.json.decode(line, type=PullRecord) for line in complete]

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ProcessError: it ended by itself.
        """
        if self._process is not None:
            self._process.check()

    async def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            await self._process.stop(grace_seconds=5)
            self._process = None
