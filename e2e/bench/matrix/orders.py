"""When prewarm first asked for an image on a node, and how sure it was, by the ImageCaches of a namespace."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prewarm.api.plan_annotation import decode_summary
from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import IMAGE_CACHES

_WATCH_SECONDS = 1200.0


class Orders:
    """Notes the nodes of one image as they appear in planned ImageCaches; times are monotonic."""

    def __init__(self, client: Client, namespace: str, image: str) -> None:
        self._client, self._namespace, self._image = client, namespace, image
        self.first: dict[str, float] = {}
        """By node."""
        self.predictability: float | None = None
        """Share of the pods that two replays put on the same nodes, by the first plan; None: nothing was planned."""

    @asynccontextmanager
    async def noted(self) -> AsyncIterator[None]:
        """Watch while the block runs."""
        task = asyncio.create_task(self._watch(), name=f"orders in {self._namespace}")
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        caches = Kinds().image_caches
        options = WatchOptions(initial_events=True, namespace=self._namespace, server_timeout=_WATCH_SECONDS)
        while True:
            async for lines in self._client.watch(IMAGE_CACHES, options):
                now = time.monotonic()
                for line in lines:
                    cache = caches.change(line).object.value
                    if cache is not None:
                        self._note(cache, now)

    def _note(self, cache: ImageCache, now: float) -> None:
        ours = [entry for entry in cache.lists if self._image in entry.images]
        for entry in ours:
            for node in entry.node_names or ():
                self.first.setdefault(node, now)
        said = decode_summary(cache.plan_annotation)
        if ours and said is not None and self.predictability is None:
            self.predictability = said.predictability
