"""Waits until a burst of changes is over, but not for ever."""

from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
More = Callable[[float], Awaitable[bool]]
"""Waits at most so many seconds for another change; says whether one came."""


class Batcher:
    """After the first change, waits until nothing changed for `idle` seconds, at most `longest` in all.

    Rolling out a Deployment is a dozen events within milliseconds; a busy cluster never falls silent.
    """

    def __init__(self, *, idle: float, longest: float, clock: Clock) -> None:
        self._idle = idle
        self._longest = longest
        self._clock = clock

    async def gather(self, more: More) -> None:
        """Return once the burst is over."""
        deadline = self._clock() + self._longest
        while (left := deadline - self._clock()) > 0:
            if not await more(min(self._idle, left)):
                return
