import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster.processes import GuardedProcess, ProcessError, is_running, wait_until
from e2e.cluster.runs import RunDirectory, new_run, sweep

ROOT = Path(__file__).parents[2]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Starts a guarded child from a thread that ends at once, prints the child's process id, and waits.
PARENT = """
import sys, threading, time
from pathlib import Path
from e2e.cluster.processes import GuardedProcess
from e2e.cluster.runs import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
started = []
def start():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    started.append(GuardedProcess.start("sleeper", command, run.path / "log"))
    run.record(started)
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(started[0].pid, flush=True)
time.sleep(600)
"""


async def test_a_stopped_process_is_gone(tmp_path: Path) -> None:
    process = GuardedProcess.start("sleeper", SLEEP, tmp_path / "log")
    assert process.running
    await process.stop(grace_seconds=5)
    assert not is_running(process.pid)


async def test_a_process_that_ignores_sigterm_is_forced(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    process = GuardedProcess.start("deaf", [sys.executable, "-c", code], log)
    await wait_until(lambda: "deaf" in log.read_text(), timeout_seconds=30)
    await process.stop(grace_seconds=0.2)
    assert process.popen.returncode == -signal.SIGKILL


async def test_an_early_end_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    process = GuardedProcess.start(
        "broken", [sys.executable, "-c", "raise SystemExit('no such flag')"], tmp_path / "log"
    )
    await wait_until(lambda: not process.running, timeout_seconds=30)
    with pytest.raises(ProcessError, match=r"(?s)broken ended with exit code 1 .*no such flag"):
        process.check()


async def test_a_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    process = GuardedProcess.start("missing", ["/nowhere/program"], tmp_path / "log")
    await wait_until(lambda: not process.running, timeout_seconds=30)
    with pytest.raises(ProcessError, match="/nowhere/program: No such file"):
        process.check()


def test_a_child_ends_with_its_killed_parent_but_not_with_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "run"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
        parent.wait()
        asyncio.run(wait_until(lambda: not is_running(child), timeout_seconds=10))


async def test_the_sweep_ends_what_a_dead_run_left_and_keeps_its_logs(tmp_path: Path) -> None:
    process = GuardedProcess.start("leftover", SLEEP, tmp_path / "log")
    run = new_run(tmp_path)
    (run.path / "etcd-data").mkdir()
    (run.path / "kept.log").touch()
    run.record([process])
    sweep(tmp_path)
    assert process.running, "a run in use is not swept"
    run._lock.close()  # noqa: SLF001 - what the kernel does when the owner is killed
    sweep(tmp_path)
    await wait_until(lambda: not process.running, timeout_seconds=10)
    assert not (run.path / "etcd-data").exists()
    assert (run.path / "kept.log").exists()


async def test_the_sweep_spares_a_process_that_got_the_id_of_a_dead_one(tmp_path: Path) -> None:
    process = GuardedProcess.start("innocent", SLEEP, tmp_path / "log")
    run = new_run(tmp_path)
    run.release()
    (run.path / "processes.json").write_text(f'[{{"pid": {process.pid}, "start": 1}}]')
    sweep(tmp_path)
    assert process.running
    await process.stop(grace_seconds=5)


def test_only_the_newest_finished_runs_are_kept(tmp_path: Path) -> None:
    for number in range(14):
        RunDirectory(tmp_path / f"20260101-000000-{number:02d}").release()
    current = new_run(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 11
    assert left[0] == "20260101-000000-04"
    assert current.path.name in left
    current.release()


def test_a_folder_in_use_is_not_taken_twice(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(BlockingIOError):
        RunDirectory(tmp_path / "run")
    run.release()
