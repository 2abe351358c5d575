"""Is the controller alive and able to take over? Heartbeats, and a second pair of eyes on our own kinds."""

from collections.abc import Callable

from msgspec import Struct

from prewarm.model.snapshot import ClusterSnapshot, ObjectKey

DEAF_SECONDS = 60.0
"""How long the store may lack what the operator shell's own watch has seen."""


class Sighting(Struct, frozen=True):
    """An ImageCache as the shell's watch saw it."""

    uid: str
    generation: int
    deleted: bool
    at: float


class Witness:
    """Compares the shell's watch of hand-written ImageCaches with the store.

    A reflector whose stream died unnoticed looks exactly like a quiet cluster; two independent watches that disagree
    for a minute do not.
    """

    def __init__(self) -> None:
        self._seen: dict[ObjectKey, Sighting] = {}

    def saw(self, key: ObjectKey, sighting: Sighting) -> None:
        """Take note of one watch event."""
        self._seen[key] = sighting

    def deaf(self, snapshot: ClusterSnapshot, now: float) -> str:
        """The ImageCache that the store has been lacking for too long; "" if there is none."""
        for key, seen in list(self._seen.items()):
            known = snapshot.image_caches.get(key)
            if seen.deleted:
                agrees = known is None or known.uid != seen.uid
            else:
                agrees = known is not None and (known.uid != seen.uid or known.generation >= seen.generation)
            if agrees:
                del self._seen[key]
            elif now - seen.at > DEAF_SECONDS:
                return (
                    f"ImageCache {key[0]}/{key[1]} changed {now - seen.at:.0f} s ago and the reflector has not seen it"
                )
        return ""


class Heartbeat:
    """When the loop last ended a cycle or found nothing to do."""

    def __init__(self, clock: Callable[[], float], stall_seconds: float) -> None:
        self._clock = clock
        self._stall = stall_seconds
        self._last = clock()
        self._busy = False

    def begin(self) -> None:
        """A cycle starts."""
        self._busy = True
        self._last = self._clock()

    def end(self) -> None:
        """The cycle is over, well or not."""
        self._busy = False
        self._last = self._clock()

    def problem(self) -> str:
        """What is wrong, in one line; "" if nothing is. Waiting for changes is no stall."""
        silent = self._clock() - self._last
        if self._busy and silent > self._stall:
            return f"the control loop has been in one cycle for {silent:.0f} s"
        return ""
