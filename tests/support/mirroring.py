"""A mirror of a fake API server for the length of a block, impatient where the real one is patient."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prewarm.cluster.backoff import Patience
from prewarm.cluster.client import Client, Limits
from prewarm.cluster.credentials import TokenSource
from prewarm.cluster.mirror import Mirror
from prewarm.cluster.reflector import Reflector, ReflectorOptions
from prewarm.model.intents import Resource
from prewarm.model.snapshot import ClusterSnapshot
from tests.support.fake_api_server import FakeApiServer

QUICK = Patience(first=0.001, longest=0.01)
TIMEOUT_SECONDS = 20.0


@asynccontextmanager
async def connected(server: FakeApiServer, tokens: TokenSource | None = None) -> AsyncIterator[Client]:
    """A client that retries quickly."""
    async with Client(server.connection(tokens), limits=Limits(patience=QUICK)) as client:
        yield client


@asynccontextmanager
async def mirroring(
    server: FakeApiServer,
    *,
    streamed: bool = True,
    silence: float = 10.0,
    tokens: TokenSource | None = None,
    synced: bool = True,
) -> AsyncIterator[Mirror]:
    """All reflectors at work, the first reading complete if `synced`."""
    options = ReflectorOptions(streamed=streamed, silence=silence, patience=QUICK)
    async with connected(server, tokens) as client:
        mirror = Mirror(client, options=options)
        running = asyncio.create_task(mirror.run(), name="mirror")
        try:
            if synced:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await mirror.wait_synced()
            yield mirror
        finally:
            running.cancel()
            ended = await asyncio.gather(running, return_exceptions=True)
            assert isinstance(ended[0], asyncio.CancelledError), ended


async def until(mirror: Mirror, condition: Callable[[ClusterSnapshot], bool]) -> ClusterSnapshot:
    """The first snapshot that meets the condition."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            mirror.store.changed()
            snapshot = mirror.store.snapshot(0.0)
            if condition(snapshot):
                return snapshot
            await mirror.store.wait_for_change()


def reflector(mirror: Mirror, resource: Resource) -> Reflector:
    """The reflector of a kind."""
    return next(found for found in mirror.reflectors if found.feed.resource == resource)
