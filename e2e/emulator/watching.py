"""List, then watch, for ever: objects as they change, removals that were missed included."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.errors import ApiError, ServerUnreachable, decode_status
from prewarm.model.intents import Resource

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.5


class Metadata(Struct, rename="camel"):
    """What every object has."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class _Object(Struct):
    metadata: Metadata


class _List(Struct):
    metadata: Metadata
    items: list[Raw] = []


class _Event(Struct):
    type: str
    object: Raw


T = TypeVar("T")


class Watch(Generic[T]):
    """Calls `seen` for every object present or changed and `gone` with the uid of every one removed."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        kind: type[T],
        *,
        seen: Callable[[T], None],
        gone: Callable[[Metadata], None],
        field_selector: str = "",
    ) -> None:
        self._client, self._resource = client, resource
        self._seen, self._gone, self._fields = seen, gone, field_selector
        self._object = msgspec.json.Decoder(kind)
        self._meta = msgspec.json.Decoder(_Object)
        self._event = msgspec.json.Decoder(_Event)
        self._list = msgspec.json.Decoder(_List)
        self._present: dict[str, Metadata] = {}
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._relist()
                    self.listed.set()
                options = WatchOptions(resource_version=version, field_selector=self._fields)
                async for lines in self._client.watch(self._resource, options):
                    for line in lines:
                        version = self._take(line) or version
            except ApiError as error:
                if error.expired:
                    version = ""
                elif not error.transient:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            except ServerUnreachable as error:
                _log.info("emulator: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _relist(self) -> str:
        present: dict[str, Metadata] = {}
        version = ""
        async for page in self._client.list_pages(self._resource, field_selector=self._fields):
            answer = self._list.decode(page)
            version = answer.metadata.resource_version
            for raw in answer.items:
                meta = self._meta.decode(raw).metadata
                present[meta.uid] = meta
                self._seen(self._object.decode(raw))
        for uid in self._present.keys() - present.keys():
            self._gone(self._present[uid])
        self._present = present
        return version

    def _take(self, line: bytes) -> str:
        event = self._event.decode(line)
        if event.type == "ERROR":
            raise decode_status(event.object, 500, request=f"watch of {self._resource.plural}")
        meta = self._meta.decode(event.object).metadata
        if event.type == "DELETED":
            self._present.pop(meta.uid, None)
            self._gone(meta)
        elif event.type != "BOOKMARK":
            self._present[meta.uid] = meta
            self._seen(self._object.decode(event.object))
        return meta.resource_version
