"""Creates whose answer was lost: the pod may exist, so it counts for a while before it is asked for again.

Whoever repeats such a request blindly may come after the pod has been seen, has finished and was deleted, and make it
a second time.
"""

from msgspec import Struct

from prewarm.model.snapshot import ObjectKey

FIRST_PAUSE_SECONDS = 0.25
"""Usually the watch has shown by then what was created; doubled with each further loss."""
LONGEST_PAUSE_SECONDS = 10.0
_FORGOTTEN_SECONDS = 60.0
"""So long after its last pause a pod's earlier losses say nothing any more."""


class _Losses(Struct, frozen=True):
    times: int
    until: float


class Unanswered:
    """Pods whose creation had no answer lately, and until when each is waited for."""

    def __init__(self) -> None:
        self._losses: dict[ObjectKey, _Losses] = {}

    def lost(self, key: ObjectKey, at: float) -> float:
        """Tell of an answer that was lost; until when the pod may yet show (unix seconds)."""
        before = self._losses.get(key)
        times = before.times + 1 if before is not None else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(times - 1, 10))
        self._losses[key] = _Losses(times, at + pause)
        return at + pause

    def answered(self, key: ObjectKey) -> None:
        """Tell that the server spoke of the pod."""
        self._losses.pop(key, None)

    def forget_old(self, now: float) -> None:
        """Drop losses of long ago, and of a later time: the clock was set back."""
        self._losses = {
            key: losses
            for key, losses in self._losses.items()
            if losses.until - LONGEST_PAUSE_SECONDS <= now < losses.until + _FORGOTTEN_SECONDS
        }
