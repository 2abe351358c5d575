"""What it costs when nothing happens: 200 ImageCaches on 1,000 nodes, all warm.

The nodes report the images from the start, so nothing is pulled. KWOK goes on with the nodes' leases; their statuses
are written as kubelets do while nothing changes: every five minutes, with new heartbeat times.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import Annotated

import typer
from msgspec import Struct
from rich.console import Console

from e2e.bench.populace import at_once, timestamp
from e2e.bench.pulling import NAMESPACE, OPTIONS, image_cache
from e2e.bench.server_metrics import WRITES, sample
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import cluster_of
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess, Usage
from e2e.emulator.nodes import NodePlan, manifest
from e2e.emulator.writer import KubeletClient
from e2e.manifests import install_definitions
from prewarm.cluster.connection import Connection
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.intents import IMAGE_CACHES, NAMESPACES, NODES, Manifest
from prewarm.simulation.specs import NodeProfile

IMAGES = 40
"""On every node; less than the 50 that a node reports."""
IMAGES_OF_A_CACHE = 5
OURS = frozenset(
    {"imagecaches", "imagecaches/status", "nodeimages", "nodeimages/status", "pods", "events", "configmaps"}
)
"""What the controller writes, its lease aside."""
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
WARM_SECONDS = 120.0
QUIET_SECONDS = 15.0
QUIET_WITHIN_SECONDS = 300.0
REPORT_SECONDS = 300.0
"""nodeStatusReportFrequency of a kubelet: so often it writes a status in which nothing else changed."""
GOAL_CPU = 0.01


class Result(Struct, frozen=True):
    """Figures of the time at rest."""

    seconds: float
    cpu_share: float
    usage: Usage
    writes: Mapping[str, int]
    """Requests by verb and resource, of what the controller writes."""
    heartbeats: int
    """Writes to nodes meanwhile: each of them is news to the controller."""


async def measure(nodes: int, caches: int, seconds: float, console: Console) -> Result:
    """Let a controller find everything warm, then watch it."""
    async with ControlPlane.start(OPTIONS) as plane, KubeletClient(Connection.load(plane.kubeconfig)) as client:
        with console.status(f"creating {nodes} nodes and {caches} caches"):
            for name in (NAMESPACE, SYSTEM_NAMESPACE):
                await client.create(NAMESPACES, "", {"metadata": {"name": name}})
            await asyncio.to_thread(install_definitions, cluster_of(plane))
            profiles = NodePlan(count=nodes).profiles()
            names = [profile.name for profile in profiles]
            await at_once(partial(client.create, NODES, "", _node(profile)) for profile in profiles)
            await at_once(partial(client.create, IMAGE_CACHES, NAMESPACE, _cache(number)) for number in range(caches))
        controller = ControllerProcess(plane.kubeconfig, plane.logs / "prewarm.log", {"PREWARM_LOG_LEVEL": "warning"})
        try:
            with console.status("waiting until all caches are warm and nothing is written any more"):
                await controller.start()
                await _until_warm(client, caches)
                await _until_quiet(plane, console)
            before, used = await sample(plane), controller.usage()
            began = time.monotonic()
            with console.status(f"at rest for {seconds:.0f} s"):
                async with _reporting(client, names):
                    await asyncio.sleep(seconds)
            took = time.monotonic() - began
            usage = controller.usage()
            requests = (await sample(plane)).since(before).requests
        finally:
            await controller.stop()
    share = (usage.cpu_seconds - used.cpu_seconds) / took
    beats = sum(n for (verb, resource), n in requests.items() if verb in WRITES and resource.startswith("nodes"))
    return Result(took, share, usage, _written(requests), beats)


@asynccontextmanager
async def _reporting(client: KubeletClient, names: Sequence[str]) -> AsyncIterator[None]:
    """Nodes write their status, one after the other, each every REPORT_SECONDS."""

    async def report() -> None:
        due = time.monotonic()
        for name in cycle(names):
            now = timestamp()
            beats = [{"type": kind, "lastHeartbeatTime": now} for kind in _CONDITIONS]
            await client.strategic_patch(NODES, "", name, {"status": {"conditions": [*beats]}}, "status")
            due += REPORT_SECONDS / len(names)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    task = asyncio.create_task(report(), name="node statuses")
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _written(requests: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{verb} {what}": count for (verb, what), count in requests.items() if verb in WRITES and what in OURS}


async def _until_warm(client: KubeletClient, caches: int) -> None:
    kind = Kinds().image_caches
    async with asyncio.timeout(WARM_SECONDS):
        while True:
            warm = 0
            async for page in client.list_pages(IMAGE_CACHES, namespace=NAMESPACE):
                for read in kind.page(page).items:
                    status = read.value.status if read.value is not None else None
                    warm += status is not None and 0 < status.desired == status.succeeded
            if warm == caches:
                return
            await asyncio.sleep(1.0)


async def _until_quiet(plane: ControlPlane, console: Console) -> None:
    async with asyncio.timeout(QUIET_WITHIN_SECONDS):
        while True:
            before = await sample(plane)
            await asyncio.sleep(QUIET_SECONDS)
            found = _written((await sample(plane)).since(before).requests)
            if not found:
                return
            console.log(f"still writing: {found}")


def _images(start: int, count: int) -> list[str]:
    return [f"registry.example/base-{number % IMAGES}:v1" for number in range(start, start + count)]


def _cache(number: int) -> Manifest:
    return image_cache(f"cache-{number:03d}", {"cacheSpec": [{"images": list(_images(number, IMAGES_OF_A_CACHE))}]})


def _node(profile: NodeProfile) -> Manifest:
    """A node that has all images."""
    made = manifest(profile)
    images: Manifest = {"images": [{"names": [image], "sizeBytes": 50_000_000} for image in _images(0, IMAGES)]}
    status = made["status"]
    assert isinstance(status, dict)
    return {**made, "status": {**status, **images}}


def main(
    nodes: Annotated[int, typer.Option(min=1, help="Emulated nodes.")] = 1000,
    caches: Annotated[int, typer.Option(min=1, help="ImageCaches, each of five images on all nodes.")] = 200,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to watch.")] = 60.0,
) -> None:
    """Measure what warm ImageCaches cost."""
    console = Console(width=120)
    result = asyncio.run(measure(nodes, caches, seconds, console))
    written = ", ".join(f"{count} x {what}" for what, count in sorted(result.writes.items())) or "none"
    console.print(f"{caches} ImageCaches on {nodes} nodes, all warm, for {result.seconds:.0f} s:")
    console.print(f"  {100 * result.cpu_share:.2f} % of a core, peak {result.usage.peak_bytes / 2**20:.0f} MiB")
    console.print(f"  writes: {written}; {result.heartbeats} writes of others to nodes meanwhile")
    console.print("kruise-manager at 1,000 idle nodes: 95 CPU seconds in 15 minutes (10.6 %), 115 to 142 MB")
    reached = not result.writes and result.cpu_share < GOAL_CPU
    console.print(f"goal: no writes, less than {100 * GOAL_CPU:g} % of a core: {'reached' if reached else 'missed'}")
    if not reached:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
