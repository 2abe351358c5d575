"""For how long does the controller's event loop stand still on a large cluster? As long nobody renews its lease.

The real loop on a filled store; the API server is played: it takes every write at once. Judged is the first look of a
new leader, when all pairs of image and node are new to it, and the time after it, in which pulls are under way.
"""

import asyncio
import gc
import time
from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer
from msgspec import Struct

from e2e.bench.measuring import peak_mebibytes
from e2e.bench.plan_snapshot import snapshot
from prewarm import __version__
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import WriteOutcome, Writer, WriteResult
from prewarm.controller.clocks import Clocks
from prewarm.controller.execution import Execution
from prewarm.controller.health import Heartbeat
from prewarm.controller.logs import configure_logging
from prewarm.controller.loop import Loop
from prewarm.controller.main import YOUNG_OBJECTS
from prewarm.controller.metrics import Metrics
from prewarm.controller.persistence import Memory, Persistence
from prewarm.controller.settings import LogLevel, Settings
from prewarm.controller.term import Services
from prewarm.model.images import canonical
from prewarm.model.intents import IMAGE_CACHES, Create, Intent, Json
from prewarm.model.nodes import Evidence, NodeImages, PresentImage

GOAL_SECONDS = 2.0
"""client-go's retry period: a lease that is looked after at such intervals is renewed five times before it is lost."""
_TICK_SECONDS = 0.005
_START = 1_767_225_600.0


class Result(Struct, frozen=True):
    """Figures of one run, in seconds."""

    longest: float
    """Longest time for which nothing else could run."""
    until_told: float
    """From the beginning to the first status, or the first pull ordered."""
    cpu: float
    seconds: float


class _Taking(Writer):
    """Takes every write; says when the first one came."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.first_at: float | None = None

    async def execute(self, intents: Iterable[Intent]) -> tuple[WriteResult, ...]:
        taken = tuple(intents)
        if taken and self.first_at is None:
            self.first_at = time.monotonic()
        return tuple(
            WriteResult(intent, WriteOutcome.CREATED if isinstance(intent, Create) else WriteOutcome.APPLIED)
            for intent in taken
        )


class _Forgetful(Persistence):
    """Remembers nothing."""

    async def load(self) -> Memory:
        return Memory()

    async def store(self, memory: Memory, now: float) -> bool:
        self._manifest(memory, now)
        return True


def filled(nodes: int, pods: int, images: int, *, warm: bool) -> Store:
    """A store with a cluster in it, and one ImageCache of so many images on every node."""
    store = Store()
    by_kind = {served.kind: feed for feed in feeds(store) for served in feed.resources}
    listing = snapshot(nodes, pods)
    items = listing["items"]
    assert isinstance(items, list)
    while items:
        item = items.pop()
        assert isinstance(item, dict)
        by_kind[str(item["kind"])].put_raw(msgspec.json.encode(item))
    wanted = [f"registry.example/team/image-{number}:v1" for number in range(images)]
    by_kind["ImageCache"].put_raw(msgspec.json.encode(_cache(wanted)))
    if warm:
        entries = tuple(_present(image, number) for number, image in enumerate(wanted))
        for name, node in store.snapshot(0.0).nodes.items():
            store.node_images.put(("", name), NodeImages(name, node.uid, node.boot_id, entries))
    return store


def _cache(images: list[str]) -> Json:
    metadata: dict[str, Json] = {
        "namespace": "default",
        "name": "all",
        "uid": "uid-all",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    spec: dict[str, Json] = {"cacheSpec": [{"images": list(images)}]}
    return {"apiVersion": IMAGE_CACHES.api_version, "kind": IMAGE_CACHES.kind, "metadata": metadata, "spec": spec}


def _present(image: str, number: int) -> PresentImage:
    digest = f"sha256:{number:064x}"
    return PresentImage(canonical(image), Evidence.OUR_PULL, _START, digest=digest, cache="default/all")


async def measure(store: Store, seconds: float) -> Result:
    """Lead on this store for so long."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    gc.collect()
    gc.freeze()
    clocks, settings = Clocks(time.time, time.monotonic), Settings(log_level=LogLevel.WARNING)
    configure_logging(settings)
    metrics = Metrics(version=__version__)
    client = Client(Connection("http://unused.example"))
    writer = _Taking(client)
    execution = Execution(writer, store, feeds(store), metrics)
    services = Services(store, execution, _Forgetful(client, settings.namespace), metrics, clocks)
    loop = Loop(settings, services, Heartbeat(clocks.steady, settings.stall_seconds))
    began, used = time.monotonic(), time.process_time()
    leading = asyncio.create_task(loop.lead(), name="lead")
    longest = await _longest(seconds, leading, writer)
    took, cpu = time.monotonic() - began, time.process_time() - used
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    return Result(longest, (writer.first_at or began) - began, cpu, took)


async def _longest(seconds: float, leading: "asyncio.Task[None]", writer: _Taking) -> float:
    """The longest time for which the event loop did not come round, until so long after the first write."""
    longest = 0.0
    while not leading.done():
        before = time.monotonic()
        if writer.first_at is not None and before > writer.first_at + seconds:
            return longest
        await asyncio.sleep(_TICK_SECONDS)
        longest = max(longest, time.monotonic() - before - _TICK_SECONDS)
    leading.result()
    raise RuntimeError("the loop has ended")


def main(
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.")] = 5000,
    pods: Annotated[int, typer.Option(min=0, help="Pods of workloads.")] = 100_000,
    images: Annotated[int, typer.Option(min=1, help="Images of an ImageCache for every node.")] = 100,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to lead after the first write.")] = 10.0,
) -> None:
    """Measure the longest standstill of the event loop."""
    reached = True
    for warm in (False, True):
        result = asyncio.run(measure(filled(nodes, pods, images, warm=warm), seconds))
        state = "all warm" if warm else "nothing there"
        print(f"{images} images on {nodes} nodes with {pods} pods, {state}, a new leader for {result.seconds:.0f} s:")
        print(f"  the event loop stood still for {result.longest:.2f} s at most (goal {GOAL_SECONDS:.0f} s)")
        print(f"  first write after {result.until_told:.2f} s; {result.cpu:.1f} CPU s, peak {peak_mebibytes():.0f} MiB")
        reached &= result.longest < GOAL_SECONDS
    if not reached:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
