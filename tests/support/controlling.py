"""The controller's loop and lease against a fake API server, without the kopf shell."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prewarm.cluster.client import Client, Limits
from prewarm.cluster.feeds import feeds
from prewarm.cluster.lease import LeaderLease, LeaseTimes
from prewarm.cluster.mirror import Mirror
from prewarm.cluster.reflector import ReflectorOptions
from prewarm.cluster.writer import Writer
from prewarm.controller.clocks import Clocks
from prewarm.controller.execution import Execution
from prewarm.controller.health import Heartbeat
from prewarm.controller.leader import Leader
from prewarm.controller.loop import Loop
from prewarm.controller.metrics import Metrics
from prewarm.controller.persistence import Persistence
from prewarm.controller.settings import Settings
from prewarm.controller.term import Services
from tests.support.fake_api_server import FakeApiServer
from tests.support.manifests import Object
from tests.support.mirroring import QUICK

NAMESPACE = "prewarm-system"
TIMES = LeaseTimes(duration=1.2, renew_deadline=0.3, retry=0.02)


@dataclass
class Instance:
    """One running instance."""

    loop: Loop
    leader: Leader
    metrics: Metrics
    lease: LeaderLease
    task: "asyncio.Task[None]"

    async def stop(self) -> None:
        """End it in order."""
        self.loop.stop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def instance(server: FakeApiServer, identity: str = "first", *, purge: bool = False) -> AsyncIterator[Instance]:
    """An instance that competes for the lease until the block ends; `purge`: with removing images switched on."""
    image = "registry.example/prewarm:v1" if purge else ""
    settings = Settings(namespace=NAMESPACE, persist_seconds=0.5, purge=purge, purge_image=image)
    clocks = Clocks(time.time, time.monotonic)
    metrics = Metrics(version="test")
    async with Client(server.connection(), limits=Limits(attempts=2, patience=QUICK)) as client:
        mirror = Mirror(client, options=ReflectorOptions(patience=QUICK))
        execution = Execution(Writer(client), mirror.store, feeds(mirror.store), metrics)
        services = Services(mirror.store, execution, Persistence(client, NAMESPACE, purge=purge), metrics, clocks)
        loop = Loop(settings, services, Heartbeat(clocks.steady, settings.stall_seconds))
        lease = LeaderLease(client, namespace=NAMESPACE, name="prewarm", identity=identity, times=TIMES)
        leader = Leader(lease, loop, metrics, mirror.wait_synced)
        mirroring = asyncio.create_task(mirror.run(), name="mirror")
        task = asyncio.create_task(leader.run(), name="leader")
        running = Instance(loop, leader, metrics, lease, task)
        try:
            yield running
        finally:
            await running.stop()
            mirroring.cancel()
            await asyncio.gather(mirroring, return_exceptions=True)


def image_cache(name: str, *images: str) -> Object:
    """A hand-written ImageCache for every node."""
    return {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {"cacheSpec": [{"images": list(images)}]},
    }
