"""Creates whose answer was lost, or was a server's error: the pod may exist, so it counts before it is asked for again.

Whoever repeats such a request blindly may come after the pod has been seen, has finished and was deleted, and make it
a second time. Whoever never stops repeating it keeps a place from others whose pods the server would take.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from prewarm.model.snapshot import ObjectKey
from prewarm.puller.pods import Order

FIRST_PAUSE_SECONDS = 0.25
"""Usually the watch has shown by then what was created; doubled with each further loss."""
LONGEST_PAUSE_SECONDS = 10.0
LASTING_SECONDS = 3.0
"""Errors in a row for longer than this are no hiccup: a webhook is down, say, rather than etcd's leader changing."""
LASTING_ERRORS = 3
"""And at least so many of them: two errors may have nothing to do with each other."""
_ROW_SECONDS = 10.0
"""An error so long after the last one's pause begins a row of its own."""
_SHARED_SECONDS = 1.0
"""A pause of this length or more holds a place for its first half only."""
_FORGOTTEN_SECONDS = 60.0
"""So long after its last pause a pod's earlier losses say nothing any more."""


class Loss(Struct, frozen=True):
    """Answers to one create that were lost in a row, or were errors of the server."""

    times: int
    at: float
    """Of the last of them, Unix seconds."""
    until: float
    """When it is asked for again."""
    errors: int = 0
    """The last so many were errors of the server, in a row."""
    errors_since: float = 0.0
    """Of the first of these errors."""
    order: Order | None = None
    """None for a pod that pulls nothing."""

    @property
    def counts_until(self) -> float:
        """Until when the pod, which may yet show, holds its place; afterwards others may have it."""
        pause = self.until - self.at
        return self.until if pause < _SHARED_SECONDS else self.at + pause / 2

    @property
    def lasts(self) -> bool:
        """Whether errors go on for so long that asking again soon is no remedy."""
        return self.errors >= LASTING_ERRORS and self.at - self.errors_since >= LASTING_SECONDS


class Unanswered:
    """Pods whose creation had no good answer lately, and until when each is waited for."""

    def __init__(self) -> None:
        self._losses: dict[ObjectKey, Loss] = {}

    def lost(self, key: ObjectKey, at: float, *, error: bool = False, order: Order | None = None) -> Loss:
        """Tell of an answer that was lost, or was an error; what that comes to with those before it."""
        before = self._losses.get(key)
        times = before.times + 1 if before is not None else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(times - 1, 10))
        errors, since = int(error), at
        if error and before is not None and before.errors and at <= before.until + _ROW_SECONDS:
            errors, since = before.errors + 1, before.errors_since
        loss = self._losses[key] = Loss(times, at, at + pause, errors, since, order)
        return loss

    def answered(self, key: ObjectKey) -> None:
        """Tell that the server spoke of the pod."""
        self._losses.pop(key, None)

    @property
    def losses(self) -> Mapping[ObjectKey, Loss]:
        """What was lost lately, by pod."""
        return self._losses

    def forget_old(self, now: float, is_outdated: Callable[[Order], bool]) -> None:
        """Drop losses of long ago, of pods that nobody would make now, and of a later time: the clock was set back."""
        self._losses = {
            key: loss
            for key, loss in self._losses.items()
            if loss.at <= now < loss.until + _FORGOTTEN_SECONDS and (loss.order is None or not is_outdated(loss.order))
        }
