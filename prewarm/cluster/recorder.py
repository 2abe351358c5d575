"""Events for people about our objects and their workloads: equal ones are counted up, also over restarts."""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec import Struct

from prewarm.cluster.client import Client
from prewarm.cluster.errors import ApiError
from prewarm.model.intents import EVENTS, Manifest, RecordEvent

_REMEMBERED = 4096
_LONGEST_MESSAGE = 1024
"""The API server refuses longer ones (validation of core/v1 Events)."""
_LONGEST_NAME = 200


class _Known(Struct):
    count: int | None = None


class EventRecorder:
    """Creates core/v1 Events. Their names say what is inside, so the second of its kind finds the first."""

    def __init__(self, client: Client, *, component: str = "prewarm", clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._component = component
        self._clock = clock
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def record(self, intent: RecordEvent) -> None:
        """Create the Event, or raise its count.

        Raises:
            ApiError: if it is refused.
            ServerUnreachable: if there is no answer.
        """
        namespace = intent.namespace or "default"
        name = _name(intent)
        key = (namespace, name)
        if key in self._counts and await self._count_up(key):
            return
        try:
            await self._client.create(EVENTS, namespace, self._manifest(intent, namespace, name))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            known = msgspec.json.decode(await self._client.get(EVENTS, namespace, name), type=_Known)
            self._remember(key, known.count or 1)
            await self._count_up(key)
        else:
            self._remember(key, 1)

    async def _count_up(self, key: tuple[str, str]) -> bool:
        """Raise the count; False if the server has forgotten the Event meanwhile (after an hour, by default)."""
        count = self._counts[key] + 1
        patch: Manifest = {"count": count, "lastTimestamp": _timestamp(self._clock())}
        try:
            await self._client.merge_patch(EVENTS, *key, patch)
        except ApiError as error:
            if not error.not_found:
                raise
            self._counts.pop(key, None)
            return False
        self._remember(key, count)
        return True

    def _remember(self, key: tuple[str, str], count: int) -> None:
        self._counts[key] = count
        self._counts.move_to_end(key)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def _manifest(self, intent: RecordEvent, namespace: str, name: str) -> Manifest:
        now = _timestamp(self._clock())
        involved = {
            "apiVersion": intent.resource.api_version,
            "kind": intent.resource.kind,
            "namespace": intent.namespace,
            "name": intent.name,
            "uid": intent.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": intent.reason,
            "message": intent.message[:_LONGEST_MESSAGE],
            "type": "Warning" if intent.warning else "Normal",
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _name(intent: RecordEvent) -> str:
    text = f"{intent.resource.kind}\0{intent.uid}\0{intent.reason}\0{intent.message}"
    return f"{intent.name[:_LONGEST_NAME]}.{blake2b(text.encode(), digest_size=8).hexdigest()}"


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
