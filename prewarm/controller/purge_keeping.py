"""Stores which ImageCaches are purged once they are gone, before anything is pulled for them."""

from collections.abc import Callable, Collection

from prewarm.controller.persistence import Persistence
from prewarm.puller import RememberedCache

AGAIN_SECONDS = 2.0
"""After a failure, storing is tried again so much later."""
PATIENCE_SECONDS = 30.0
"""So long pulls wait for what cannot be stored. Then they go on: an image that stays on its node when its ImageCache is
deleted while no controller runs does less harm than one that is not there when pods start."""


class PurgeKeeping:
    """Keeps the stored list right; while that fails, holds back pulls for caches that are not on it."""

    def __init__(
        self, persistence: Persistence, stored: Collection[RememberedCache], steady: Callable[[], float]
    ) -> None:
        """`stored` is what an earlier instance has left; `steady` a clock that never jumps."""
        self._persistence = persistence
        self._stored = tuple(stored)
        self._steady = steady
        self._missing: frozenset[str] = frozenset()
        self._failing_since: float | None = None
        self._again_at = 0.0

    async def keep(self, remembered: tuple[RememberedCache, ...] | None) -> None:
        """Store what is remembered if it changed; None where removing images is off."""
        now = self._steady()
        if remembered is None or remembered == self._stored:
            self._settle()
            return
        # What is not to be purged any more goes from the list, too, but nothing waits for that.
        self._missing = frozenset(cache.uid for cache in remembered) - {cache.uid for cache in self._stored}
        if self._failing_since is not None and now < self._again_at:
            return
        if await self._persistence.store_purges(remembered):
            self._stored = remembered
            self._settle()
            return
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._again_at = self._steady() + AGAIN_SECONDS

    def _settle(self) -> None:
        self._missing, self._failing_since = frozenset(), None

    def holds_back(self, cache_uid: str) -> bool:
        """Whether pulls for a cache wait, since its deletion may go unseen."""
        patient = self._failing_since is not None and self._steady() < self._failing_since + PATIENCE_SECONDS
        return patient and cache_uid in self._missing

    @property
    def again_in(self) -> float | None:
        """Seconds until the next try; None if everything is stored."""
        return None if self._failing_since is None else max(0.0, self._again_at - self._steady())
