"""Creates whose answer was lost, or was a server's error: the pod may exist, so it counts before it is asked for again.

Whoever repeats such a request blindly may come after the pod has been seen, has finished and was deleted, and make it
a second time. Whoever never stops repeating it keeps a place from others whose pods the server would take.
"""

from collections.abc import Mapping

from msgspec import Struct

from prewarm.model.snapshot import ObjectKey

FIRST_PAUSE_SECONDS = 0.25
"""Usually the watch has shown by then what was created; doubled with each further loss."""
LONGEST_PAUSE_SECONDS = 10.0
LASTING_SECONDS = 3.0
"""Errors in a row for longer than this are no hiccup: a webhook is down, say, rather than etcd's leader changing."""
_SHARED_SECONDS = 1.0
"""A pause of this length or more holds a place for its first half only."""
_FORGOTTEN_SECONDS = 60.0
"""So long after its last pause a pod's earlier losses say nothing any more."""


class Loss(Struct, frozen=True):
    """Answers to one create that were lost in a row, or were errors of the server."""

    times: int
    since: float
    """Of the first of them, Unix seconds."""
    at: float
    until: float
    """When it is asked for again."""

    @property
    def counts_until(self) -> float:
        """Until when the pod, which may yet show, holds its place; afterwards others may have it."""
        pause = self.until - self.at
        return self.until if pause < _SHARED_SECONDS else self.at + pause / 2

    @property
    def lasts(self) -> bool:
        """Whether it goes on for so long that asking again soon is no remedy."""
        return self.at - self.since >= LASTING_SECONDS


class Unanswered:
    """Pods whose creation had no good answer lately, and until when each is waited for."""

    def __init__(self) -> None:
        self._losses: dict[ObjectKey, Loss] = {}

    def lost(self, key: ObjectKey, at: float) -> Loss:
        """Tell of an answer that was lost, or was an error; what that comes to with those before it."""
        before = self._losses.get(key)
        times = before.times + 1 if before is not None else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(times - 1, 10))
        loss = self._losses[key] = Loss(times, before.since if before is not None else at, at, at + pause)
        return loss

    def answered(self, key: ObjectKey) -> None:
        """Tell that the server spoke of the pod."""
        self._losses.pop(key, None)

    @property
    def losses(self) -> Mapping[ObjectKey, Loss]:
        """What was lost lately, by pod."""
        return self._losses

    def forget_old(self, now: float) -> None:
        """Drop losses of long ago, and of a later time: the clock was set back."""
        self._losses = {
            key: loss for key, loss in self._losses.items() if loss.at <= now < loss.until + _FORGOTTEN_SECONDS
        }
