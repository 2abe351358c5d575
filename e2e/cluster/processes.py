"""Child processes that end with their parent, whatever ends it, and say why when they end early."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import TypeVar

_GUARD = Path(__file__).with_name("execguard.py")
_TAIL_LINES = 15
_TAIL_BYTES = 64 * 1024

Result = TypeVar("Result")

# PR_SET_PDEATHSIG fires when the *thread* that forked ends. This one lives as long as the interpreter.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-spawner")


class ProcessError(RuntimeError):
    """A child process could not be started, ended early or did not become ready."""


@dataclass(slots=True)
class GuardedProcess:
    """One running program with its log file.

    The program runs in a session of its own: Ctrl-C in a terminal reaches only the parent, which then stops its
    children in the right order.
    """

    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    started_monotonic: float
    expected_to_end: bool = field(default=False)

    @classmethod
    def start(
        cls, name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> "GuardedProcess":
        """Start `command`, both of its output streams appended to `log`."""

        def spawn() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    guarded(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=None if environment is None else dict(environment),
                )

        return cls(name, log, _spawner.submit(spawn).result(), time.monotonic())

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        return self.popen.poll() is None

    def check(self) -> None:
        """Do nothing while the program runs.

        Raises:
            ProcessError: the program ended; the message holds how, and the end of its log.
        """
        status = self.popen.poll()
        if status is None:
            return
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        after = time.monotonic() - self.started_monotonic
        raise ProcessError(f"{self.name} {how} after {after:.1f} s; the end of {self.log}:\n{log_tail(self.log)}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program; nothing happens if it has ended."""
        if self.running:
            self.popen.send_signal(number)

    async def stop(self, *, grace_seconds: float) -> None:
        """Ask the program to end, force it after `grace_seconds`, and wait until it is gone."""
        self.expected_to_end = True
        self.signal(signal.SIGTERM)
        try:
            await wait_until(lambda: not self.running, timeout_seconds=grace_seconds)
        except TimeoutError:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """End the program and what it started at once."""
        self.expected_to_end = True
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            self.popen.wait()


def guarded(command: Sequence[str | Path]) -> list[str]:
    """Return `command` wrapped so that the kernel ends it when the calling thread or its process ends."""
    return [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *map(str, command)]


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that ended and that nobody has waited for does not (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_until(condition: Callable[[], bool], *, timeout_seconds: float, interval_seconds: float = 0.05) -> None:
    """Wait until `condition()` is true.

    Raises:
        TimeoutError: it was not within the time.
    """
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 - processes offer no event that works on every loop and thread
            await asyncio.sleep(interval_seconds)


async def in_daemon_thread(function: Callable[[], Result]) -> Result:
    """Run a slow function beside the event loop; unlike asyncio.to_thread, an interrupted program ends without it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(error: Exception | None, results: list[Result]) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(results[0])

    def run() -> None:
        error, results = None, []
        try:
            results.append(function())
        except Exception as caught:  # noqa: BLE001 - handed to the caller
            error = caught
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(settle, error, results)

    threading.Thread(target=run, name="slow-start", daemon=True).start()
    return await future


def log_tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log file, indented, or a note that it is empty."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read().decode(errors="replace").rstrip()
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (empty)"


def free_port() -> int:
    """Return a loopback TCP port that nothing listened on a moment ago.

    Ports come from below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one
    between this call and the program's bind. Another program may: callers start again with a new port.
    """
    random = SystemRandom()
    for _ in range(200):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ProcessError("no free port on 127.0.0.1 between 20000 and 32000")
