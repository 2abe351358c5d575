"""Folders of runs: made, held while in use, swept when their owner died, pruned when there are many."""

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from e2e.cluster.processes import GuardedProcess

_LOCK = "lock"
_PROCESSES = "processes.json"
_KEPT_RUNS = 10


class RunDirectory:
    """One run's folder, held by a lock that the kernel releases when this process ends."""

    def __init__(self, path: Path) -> None:
        """Make the folder and hold it.

        Raises:
            BlockingIOError: another process uses it.
        """
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._lock = _try_lock(path)

    def record(self, processes: Iterable[GuardedProcess]) -> None:
        """Write down what runs, for the sweep after a crash."""
        known = [{"pid": process.pid, "start": _start_time(process.pid)} for process in processes if process.running]
        temporary = self.path / f"{_PROCESSES}.new"
        temporary.write_text(json.dumps(known))
        temporary.replace(self.path / _PROCESSES)

    def release(self) -> None:
        """Remove what is of no use after the run; logs and kubeconfigs stay."""
        _remove_data(self.path)
        self._lock.close()


def new_run(root: Path) -> RunDirectory:
    """Sweep after dead runs below `root`, prune the oldest, and make a new run's folder."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep(root)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        path = root / f"{stamp}-{os.getpid()}-{number}"
        if not path.exists():
            return RunDirectory(path)
        number += 1


def sweep(root: Path) -> None:
    """End what a dead run left running, remove its data, and keep only the newest finished runs."""
    finished = []
    for path in sorted(child for child in root.iterdir() if child.is_dir()):
        try:
            lock = _try_lock(path)
        except BlockingIOError:
            continue
        with lock:
            _end_leftovers(path)
            _remove_data(path)
            finished.append(path)
    for path in finished[:-_KEPT_RUNS]:
        shutil.rmtree(path, ignore_errors=True)


def _try_lock(path: Path) -> TextIO:
    lock = (path / _LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise
    return lock


def _end_leftovers(path: Path) -> None:
    try:
        known = json.loads((path / _PROCESSES).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return
    for entry in known:
        pid, start = int(entry["pid"]), entry["start"]
        # A process id is used again in time; together with the start time it names one process.
        if start is not None and _start_time(pid) == start:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _remove_data(path: Path) -> None:
    (path / _PROCESSES).unlink(missing_ok=True)
    shutil.rmtree(path / "etcd-data", ignore_errors=True)


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22), or None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])
