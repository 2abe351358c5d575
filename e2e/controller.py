"""A controller as a child process, for tests and benchmarks: started, asked, stopped, killed."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from e2e.cluster.processes import GuardedProcess, ProcessError, free_port, log_tail
from prewarm.model.outcomes import Outcome

SYSTEM_NAMESPACE = "prewarm-system"
READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_JUDGED = "container started"
"""The log line for each outcome."""
_TICKS = os.sysconf("SC_CLK_TCK")


class _Judged(Struct):
    """A log line about an outcome; other lines lack these fields."""

    event: str = ""
    pod_uid: str = ""
    image: str = ""
    outcome: str = ""


def judged_starts(log: Path) -> dict[tuple[str, str], Outcome]:
    """What a controller's log says of container starts, by pod uid and image."""
    found: dict[tuple[str, str], Outcome] = {}
    for line in log.read_bytes().splitlines() if log.exists() else ():
        if _JUDGED.encode() not in line:
            continue
        try:
            judged = msgspec.json.decode(line, type=_Judged)
        except msgspec.DecodeError:  # a line that is being written
            continue
        if judged.event == _JUDGED:
            found[judged.pod_uid, judged.image] = Outcome(judged.outcome)
    return found


class Usage(Struct, frozen=True):
    """What a process has taken so far."""

    cpu_seconds: float
    peak_bytes: int


class ControllerProcess:
    """`python -m prewarm.controller` against a cluster."""

    def __init__(self, kubeconfig: Path, log: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are environment variables beyond those that every run needs."""
        self.log = log
        self.port = free_port()
        self._environment = {
            **os.environ,
            "PREWARM_KUBECONFIG": str(kubeconfig),
            "PREWARM_NAMESPACE": SYSTEM_NAMESPACE,
            "PREWARM_HTTP_HOST": "127.0.0.1",
            "PREWARM_HTTP_PORT": str(self.port),
            "PREWARM_LOG_FORMAT": "json",
            **(settings or {}),
        }
        self._process: GuardedProcess | None = None

    async def start(self) -> None:
        """Start it and wait until /readyz says yes.

        Raises:
            ProcessError: it ended, or was not ready in time.
        """
        command = [sys.executable, "-m", "prewarm.controller"]
        self._process = GuardedProcess.start("prewarm", command, self.log, self._environment)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while await self.get("/readyz") != "ok\n":
                    self._process.check()
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise ProcessError(f"not ready after {READY_SECONDS:.0f} s; its log ends:\n{log_tail(self.log)}") from None

    async def wait_leading(self) -> None:
        """Return once it holds the lease."""
        async with asyncio.timeout(READY_SECONDS):
            while (await self.metrics()).get("prewarm_leader") != 1:
                self.check()
                await asyncio.sleep(_POLL_SECONDS)

    async def get(self, path: str) -> str:
        """Body of an answer, "" if nobody listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return await answer.text()
        except aiohttp.ClientConnectionError:
            return ""

    async def metrics(self) -> dict[str, float]:
        """Samples by name, with their label values in braces where they have any."""
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(await self.get("/metrics")):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def usage(self) -> Usage:
        """Processor time and peak of resident memory, as the kernel counts them."""
        if self._process is None:
            raise ProcessError("the controller does not run")
        folder = Path("/proc") / str(self._process.pid)
        fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        status = (folder / "status").read_text(encoding="utf-8")
        peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, max(peaks, default=0) * 1024)

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ProcessError: it ended by itself.
        """
        if self._process is not None:
            self._process.check()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.running

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP and SIGCONT to let it stall."""
        if self._process is not None:
            self._process.signal(number)

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    async def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            await self._process.stop(grace_seconds=15)
            self._process = None
