"""Runs benchmarks, each in a process of its own, so that none inherits another's memory."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

BENCHMARKS = {
    "list_watch": "listing and watching pods, beside the official client",
    "plan_snapshot": "`prewarm plan --snapshot` on a large cluster, start of Python included",
    "placement": "predictions beside the real kube-scheduler and simpler guesses",
    "emulator": "the node emulator beside the control plane that it serves: 1,000 nodes, 5,000 pods",
    "pulling": "an ImageCache on 1,000 nodes: pulls a second, what they cost, beside the ideal and others",
    "rest": "200 warm ImageCaches on 1,000 nodes: what nothing costs",
    "standstill": "the controller's event loop on 5,000 nodes with 100 images: how long it does not come round",
    "reaction": "from a template change to the first puller pod, on a real control plane",
    "rollouts": "fifty Deployments that change at once, on 1,000 nodes: reactions, budgets, hits, costs",
    "matrix": "hits, waste and start latency by strategy, cluster and help",
}
"""Modules of this package and what they measure, in the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, all by default; returns the number of those that failed."""
    listing = "\n".join(f"  {name:15}{what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m e2e.bench",
        description=f"Run benchmarks and print their figures:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all by default")
    wanted = parser.parse_args(arguments).names or list(BENCHMARKS)
    unknown = sorted(set(wanted) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    failed = [name for name in wanted if not _passes(name)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return len(failed)


def _passes(name: str) -> bool:
    print(f"\n=== {name}: {BENCHMARKS[name]} ===", flush=True)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", f"e2e.bench.{name}"], check=False)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
