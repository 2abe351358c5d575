"""What an ImageCache leaves open is as the controller is set, and its times are such as can be."""

from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.times import believed
from prewarm.puller.settings import PullerSettings


def complete(cache: ImageCache, settings: PullerSettings) -> ImageCache:
    """The cache with every field set that has a default among the settings."""
    return replace(
        cache,
        pull_policy=settings.pull_policy if cache.pull_policy is None else cache.pull_policy,
        attempt_timeout_seconds=(
            settings.attempt_timeout_seconds if cache.attempt_timeout_seconds is None else cache.attempt_timeout_seconds
        ),
        refresh_seconds=_interval(cache, settings),
        service_account=cache.service_account or settings.service_account,
        puller_form=settings.puller_form if cache.puller_form is None else cache.puller_form,
        priority_class=cache.priority_class or settings.priority_class,
    )


def _interval(cache: ImageCache, settings: PullerSettings) -> float:
    """Who gives times and no interval wants refreshes at these times only."""
    if cache.refresh_seconds is not None:
        return cache.refresh_seconds
    return settings.refresh_seconds if cache.schedule is None else 0.0


class Defaults:
    """Completes the caches of one snapshot after the other; one that did not change stays the same object."""

    def __init__(self) -> None:
        self._completed: dict[ObjectKey, tuple[ImageCache, PullerSettings, ImageCache]] = {}

    def apply(self, snapshot: ClusterSnapshot, settings: PullerSettings) -> ClusterSnapshot:
        """The snapshot with completed caches."""
        completed: dict[ObjectKey, tuple[ImageCache, PullerSettings, ImageCache]] = {}
        for key, cache in snapshot.image_caches.items():
            known = self._completed.get(key)
            created_at = believed(cache.created_at, snapshot.taken_at)
            same = known is not None and known[0] is cache and known[1] is settings
            if known is None or not same or known[2].created_at != created_at:
                # What happened before a creation does not count; after one in the future, nothing would.
                known = (cache, settings, replace(complete(cache, settings), created_at=created_at))
            completed[key] = known
        self._completed = completed
        return replace(snapshot, image_caches={key: known[2] for key, known in completed.items()})
