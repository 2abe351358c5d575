"""The kubelet's event recorder: merging, counting and dropping, as client-go does (tools/record/events_cache.go)."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from prewarm.simulation.messages import COMBINED, EventType
from prewarm.simulation.outputs import EventEmitted
from prewarm.simulation.specs import PodSpec

_CACHE_SIZE = 4096
_SPAM_BURST = 25
_SPAM_SECONDS_PER_EVENT = 300.0
_SIMILAR_EVENTS = 10
_SIMILAR_SECONDS = 600.0

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Lru(Generic[_Key, _Value]):
    """A dictionary that forgets what was not used for longest."""

    def __init__(self, factory: Callable[[], _Value]) -> None:
        self._factory = factory
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value:
        value = self._entries.pop(key, None)
        if value is None:
            value = self._factory()
            if len(self._entries) >= _CACHE_SIZE:
                self._entries.popitem(last=False)
        self._entries[key] = value
        return value


class _Similar:
    """Distinct messages of one reason on one object."""

    __slots__ = ("last_at", "messages")

    def __init__(self) -> None:
        self.messages: dict[str, None] = {}
        self.last_at = float("-inf")


class _Occurrences:
    """One Event object."""

    __slots__ = ("count", "field_path", "first_at", "name")

    def __init__(self) -> None:
        self.count = 0
        self.first_at = 0.0
        self.name = self.field_path = ""


class _Bucket:
    """Token bucket of the spam filter."""

    __slots__ = ("at", "tokens")

    def __init__(self) -> None:
        self.tokens = float(_SPAM_BURST)
        self.at: float | None = None

    def take(self, now: float) -> bool:
        if self.at is not None:
            self.tokens = min(_SPAM_BURST, self.tokens + (now - self.at) / _SPAM_SECONDS_PER_EVENT)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Recorder:
    """One kubelet's recorder; what it knows is lost when the kubelet restarts."""

    def __init__(self, node: str, sink: Callable[[EventEmitted], None]) -> None:
        self._node = node
        self._sink = sink
        self._similar: _Lru[tuple[str, EventType, str], _Similar] = _Lru(_Similar)
        self._events: _Lru[tuple[str, EventType, str, str, str], _Occurrences] = _Lru(_Occurrences)
        self._buckets: _Lru[tuple[str, EventType], _Bucket] = _Lru(_Bucket)
        self._sequence = 0

    def record(
        self, now: float, pod: PodSpec, event_type: EventType, reason: str, message: str, field_path: str = ""
    ) -> None:
        """Count an occurrence and emit it, unless the spam filter drops it.

        Order as in EventCorrelate: aggregate, then count, then filter; so dropped ones are counted too.
        """
        similar = self._similar.get((pod.uid, event_type, reason))
        if now - similar.last_at > _SIMILAR_SECONDS:
            similar.messages.clear()
        similar.last_at = now
        similar.messages[message] = None
        key = (pod.uid, event_type, reason, message, field_path)
        if len(similar.messages) >= _SIMILAR_EVENTS:
            # client-go drops any of them; here the new one, so that the first nine stay separate.
            similar.messages.popitem()
            message = COMBINED + message
            key = (pod.uid, event_type, reason, "", "")
        occurrences = self._events.get(key)
        occurrences.count += 1
        if occurrences.count == 1:
            self._sequence += 1
            occurrences.first_at, occurrences.field_path = now, field_path
            occurrences.name = f"{pod.name}.{int(now * 1e6):x}{self._sequence:04x}"
        if self._buckets.get((pod.uid, event_type)).take(now):
            self._sink(
                EventEmitted(
                    now,
                    occurrences.name,
                    pod.namespace,
                    pod.name,
                    pod.uid,
                    self._node,
                    event_type,
                    reason,
                    message,
                    occurrences.field_path,
                    occurrences.count,
                    occurrences.first_at,
                )
            )
