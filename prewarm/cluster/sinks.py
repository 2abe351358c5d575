"""Where reflectors put objects: compared with what is known before anybody is told."""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

import msgspec

from prewarm.cluster.changes import ChangeCollector
from prewarm.cluster.tables import Table
from prewarm.model.snapshot import ObjectKey
from prewarm.model.workloads import KubeletEvent

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Takes the objects of one kind."""

    def put(self, key: ObjectKey, value: T_contra) -> bool:
        """Take an object; False if nothing that matters has changed."""

    def remove(self, key: ObjectKey) -> bool:
        """Forget an object; False if it was not known."""

    def keys(self) -> Collection[ObjectKey]:
        """The objects that are known."""

    def __len__(self) -> int: ...


class TableSink(Generic[T]):
    """Keeps objects in a table and tells what was and what is."""

    def __init__(
        self,
        update: Callable[[ObjectKey, T | None, T | None], None],
        changes: ChangeCollector,
        table: Table[ObjectKey, T] | None = None,
    ) -> None:
        self._table: Table[ObjectKey, T] = Table() if table is None else table
        self._update = update
        self._changes = changes

    def put(self, key: ObjectKey, value: T) -> bool:
        """Take an object; one that differs in its resourceVersion only is dropped: heartbeats bring many."""
        old = self._table.get(key)
        if old is not None and _same(old, value):
            return False
        self._table.put(key, value)
        self._update(key, old, value)
        self._changes.happened.set()
        return True

    def remove(self, key: ObjectKey) -> bool:
        """Forget an object."""
        old = self._table.pop(key)
        if old is None:
            return False
        self._update(key, old, None)
        self._changes.happened.set()
        return True

    def keys(self) -> Collection[ObjectKey]:
        """The objects that are known."""
        return self._table.keys()

    def __len__(self) -> int:
        return len(self._table)


class EventBuffer:
    """Kubelet Events until accounting takes them; bounded, the oldest are dropped and counted."""

    def __init__(self, changes: ChangeCollector, *, capacity: int = 50_000) -> None:
        self.dropped = 0
        self._changes = changes
        self._waiting: deque[KubeletEvent] = deque(maxlen=capacity)
        self._seen: OrderedDict[ObjectKey, tuple[str, int, float]] = OrderedDict()
        self._capacity = capacity

    def put(self, key: ObjectKey, value: KubeletEvent) -> bool:
        """Queue an Event, again if its count has grown; a relist brings known ones, which are left out."""
        mark = (value.uid, value.count, value.last_seen)
        if self._seen.get(key) == mark:
            return False
        self._seen[key] = mark
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
        if len(self._waiting) == self._capacity:
            self.dropped += 1
        self._waiting.append(value)
        self._changes.happened.set()
        return True

    def remove(self, key: ObjectKey) -> bool:
        """The server forgets Events after an hour; those waiting here stay."""
        return self._seen.pop(key, None) is not None

    def keys(self) -> Collection[ObjectKey]:
        """The Events that the server still has."""
        return list(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def drain(self) -> tuple[KubeletEvent, ...]:
        """Everything that came since the last call, in order of arrival."""
        events = tuple(self._waiting)
        self._waiting.clear()
        return events


def _same(old: T, new: T) -> bool:
    """Equal but for the resourceVersion."""
    if isinstance(new, msgspec.Struct):
        version = getattr(old, "resource_version", None)
        if version is not None and version != getattr(new, "resource_version", None):
            new = msgspec.structs.replace(new, resource_version=version)
    return old == new
