"""Writes to the API server: in order for each object, many objects at once, nothing unbounded."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from http import HTTPStatus

from prewarm.cluster.client import Client, path_of
from prewarm.cluster.errors import ApiError, ClusterError
from prewarm.model.intents import Manifest, Resource

Write = Callable[[], Awaitable[object]]

_log = logging.getLogger(__name__)
_STRATEGIC = "application/strategic-merge-patch+json"
_PAUSE_SECONDS = 1.0
_HARMLESS = {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN}
"""The object is gone, is another one, or its namespace is being deleted."""


class KubeletClient(Client):
    """The client, and the kind of patch that kubelets send."""

    async def strategic_patch(
        self, resource: Resource, namespace: str, name: str, patch: Manifest, subresource: str = ""
    ) -> bytes:
        """Strategic merge patch: lists with a merge key, as conditions, keep the entries of others."""
        path = path_of(resource, namespace, name, subresource)
        return await self._request("PATCH", path, {}, patch, content_type=_STRATEGIC)


class Writer:
    """Lanes of writes: those of one lane go one after another, a newer one may replace an older that still waits."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lanes: dict[Hashable, deque[tuple[str, Write]]] = {}
        self._ready: asyncio.Queue[Hashable] = asyncio.Queue()
        self._busy = 0
        self.written: Counter[str] = Counter()
        """Writes by kind."""
        self.dropped: Counter[str] = Counter()
        """Writes that the server refused for good."""

    @property
    def waiting(self) -> int:
        """Lanes with something to write."""
        return len(self._lanes)

    def put(self, lane: Hashable, kind: str, write: Write, *, replace: bool = False) -> None:
        """Queue a write; with `replace` it takes the place of one of its kind that waits at the lane's end."""
        waiting = self._lanes.get(lane)
        if waiting is None:
            self._lanes[lane] = deque([(kind, write)])
            self._ready.put_nowait(lane)
        elif replace and waiting and waiting[-1][0] == kind:
            waiting[-1] = (kind, write)
        else:
            waiting.append((kind, write))

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"emulator-writer-{number}")

    async def _work(self) -> None:
        while True:
            lane = await self._ready.get()
            kind, write = self._lanes[lane].popleft()
            if not await self._try(kind, write):
                self._lanes[lane].appendleft((kind, write))
                await asyncio.sleep(_PAUSE_SECONDS)
            if self._lanes[lane]:
                self._ready.put_nowait(lane)
            else:
                del self._lanes[lane]

    async def _try(self, kind: str, write: Write) -> bool:
        """False if the server could not be reached: the write stays first in its lane."""
        try:
            await write()
        except ApiError as error:
            if error.transient:
                return False
            self.dropped[kind] += 1
            if error.code not in _HARMLESS:
                _log.warning("emulator: %s", error)
            return True
        except ClusterError as error:
            _log.warning("emulator: %s", error)
            return False
        self.written[kind] += 1
        return True
