"""What a process has used so far, told from inside, and how a benchmark hands it on."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Usage:
    """Figures of one measured block; seconds and MiB."""

    wall: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0
    """Largest resident set of the process up to the block's end."""
    before: float = 0.0
    """The same at the block's beginning: what imports alone take."""
    count: int = 0


class Measurement:
    """Filled in when the block ends; set `count` inside."""

    def __init__(self) -> None:
        self.count = 0
        self.usage = Usage()


@contextmanager
def measured() -> Iterator[Measurement]:
    """Measure a block of this process."""
    measurement = Measurement()
    before, wall, cpu = peak_mebibytes(), time.perf_counter(), time.process_time()
    yield measurement
    measurement.usage = Usage(
        wall=time.perf_counter() - wall,
        cpu=time.process_time() - cpu,
        peak=peak_mebibytes(),
        before=before,
        count=measurement.count,
    )


def peak_mebibytes() -> float:
    """Largest resident set so far. ru_maxrss may count the parent's before exec, hence /proc where there is one."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def report(usages: dict[str, Usage]) -> None:
    """Print the figures for `run_role` of the parent."""
    print(json.dumps({name: asdict(usage) for name, usage in usages.items()}))


def run_role(module: str, arguments: Sequence[str], *, timeout: float = 900.0) -> dict[str, Usage]:
    """Run a module as a process of its own that ends with `report`."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        timeout=timeout,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    return {name: Usage(**figures) for name, figures in json.loads(done.stdout.splitlines()[-1]).items()}
