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


class Progress:
    """How far a kind's list and watch have come, by resourceVersion (comparable as numbers: KEP-5504)."""

    def __init__(self) -> None:
        self._reached = 0

    def reach(self, version: str) -> None:
        """List or watch have brought everything up to this version."""
        if version.isdecimal():
            self._reached = max(self._reached, int(version))

    def has_passed(self, version: str) -> bool:
        """Whether the watch has brought an object's state of this version already, its deletion since included."""
        return version.isdecimal() and int(version) <= self._reached


class Sink(Protocol[T_contra]):
    """Takes the objects of one kind."""

    progress: Progress

    def put(self, key: ObjectKey, value: T_contra, *, listed: bool = False) -> bool:
        """Take an object; False if nothing that matters has changed.

        `listed`: it is the truth as of a new list, even if its version is lower than the known one (etcd was restored).
        """

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
        self.progress = Progress()
        self._update = update
        self._changes = changes

    def put(self, key: ObjectKey, value: T, *, listed: bool = False) -> bool:
        """Take an object; one that differs in its resourceVersion only is dropped: heartbeats bring many.

        So is an earlier state than the known one: what we wrote is put here before the watch comes to it.
        """
        old = self._table.get(key)
        if old is not None and (_same(old, value) or (not listed and _earlier(value, old))):
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
        self.progress = Progress()
        self._changes = changes
        self._waiting: deque[KubeletEvent] = deque(maxlen=capacity)
        self._seen: OrderedDict[ObjectKey, tuple[str, int, float]] = OrderedDict()
        self._capacity = capacity

    def put(self, key: ObjectKey, value: KubeletEvent, *, listed: bool = False) -> bool:  # noqa: ARG002 - part of Sink
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


def _earlier(new: object, old: object) -> bool:
    """Whether this is a previous state of the same object."""
    if getattr(new, "uid", None) != getattr(old, "uid", ""):
        return False
    versions = getattr(new, "resource_version", ""), getattr(old, "resource_version", "")
    return all(version.isdecimal() for version in versions) and int(versions[0]) < int(versions[1])
