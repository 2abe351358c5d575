"""What of all this is to be written on the ImageCaches themselves: status, Events, requests that were heeded?"""

from collections.abc import Collection, Iterable, Iterator

from prewarm.api.image_cache_status import status_manifest
from prewarm.api.names import ANNOTATION_REFRESH
from prewarm.model.image_caches import ImageCache, ImageCacheStatus
from prewarm.model.intents import IMAGE_CACHES, Apply, Delete, Intent, RemoveAnnotation
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.admission import Admitted
from prewarm.puller.lifecycle import deletion_at
from prewarm.puller.memory import PullerMemory
from prewarm.puller.notes import notes_on
from prewarm.puller.purge import Purge
from prewarm.puller.purge_status import PurgeStatus, event_of
from prewarm.puller.quota import Headroom
from prewarm.puller.refresh import Request, asked
from prewarm.puller.settings import PullerSettings
from prewarm.puller.standing import Standing
from prewarm.puller.status import event_for, status_of, verdict


class Telling:
    """Tells on one snapshot how the caches stand, once it is decided what is pulled.

    Attributes:
        wake_times: when counts are to be written that wait now.
    """

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        settings: PullerSettings,
        memory: PullerMemory,
        admitted: Admitted,
        purge: Purge,
        headroom: Headroom,
        waiting_for_quota: Collection[str],
    ) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._memory = memory
        self._purges = PurgeStatus(purge, memory.purge, enabled=settings.purge.enabled)
        self._headroom = headroom
        self._waiting_for_quota = waiting_for_quota
        self._ordered: dict[str, set[tuple[str, str]]] = {}
        for order in admitted.orders:
            self._ordered.setdefault(order.cache_uid, set()).update((order.node, image) for image in order.images)
        self.wake_times: list[float] = []

    def tell(self, standings: Iterable[Standing]) -> Iterator[Intent]:
        """All that is to be written; read it to the end before `wake_times`."""
        for standing in standings:
            yield from self._follow_up(standing)
            yield from self._status(standing)

    def _status(self, standing: Standing) -> Iterator[Intent]:
        """Status and Event of one cache if they changed; counts alone wait for the interval."""
        cache, now = standing.cache, self._snapshot.taken_at
        ordered = self._ordered.get(cache.uid, set())
        if cache.deleted_at is not None or (not ordered and self._is_told(standing)):
            return
        standing.told_of_purge = self._purges.told(cache)
        notes = notes_on(standing, self._snapshot, self._headroom, self._memory.hearsay, self._waiting_for_quota)
        status = self._purges.amend(cache, status_of(standing, ordered, now, self._request(standing), notes), now)
        if status == cache.status:
            standing.told = None if ordered else (standing.revision, cache)
            return
        last = self._memory.written_at("Status", cache.namespace, cache.name)
        next_at = now if last is None else last + self._settings.status_interval
        if next_at > now and verdict(status) == verdict(cache.status):
            self.wake_times.append(next_at)
            return
        if self._memory.is_new("Status", cache.namespace, cache.name, status, now):
            manifest = status_manifest(cache, status)
            yield Apply(IMAGE_CACHES, cache.namespace, cache.name, manifest, subresource="status")
            yield from self._events(cache, status)

    def _follow_up(self, standing: Standing) -> Iterator[Intent]:
        """Remove an empty request that was heeded, and an ImageCache whose time after its end is over."""
        cache, now = standing.cache, self._snapshot.taken_at
        if cache.deleted_at is not None:
            return
        if asked(cache).is_removable and self._memory.is_new(
            "Refresh", cache.namespace, cache.name, (cache.uid, cache.status.requested_at), now
        ):
            yield RemoveAnnotation(IMAGE_CACHES, cache.namespace, cache.name, ANNOTATION_REFRESH, uid=cache.uid)
        deletion = deletion_at(cache, standing.course) if standing.course is not None else None
        over = deletion is not None and deletion <= now and asked(cache).mark is None
        if over and self._memory.is_new("Deletion", cache.namespace, cache.name, cache.uid, now):
            yield Delete(IMAGE_CACHES, cache.namespace, cache.name, cache.uid)

    def _is_told(self, standing: Standing) -> bool:
        """Whether the status was found right, and nothing changed since; of a run that goes on, time alone may."""
        cache, known, course = standing.cache, standing.told, standing.course
        return (
            known is not None
            and known[0] == standing.revision
            and known[1] is cache
            and (not cache.completion.once or (course is not None and course.finished_at is not None))
            and standing.told_of_purge == self._purges.told(cache)
        )

    def _events(self, cache: ImageCache, status: ImageCacheStatus) -> Iterator[Intent]:
        now = self._snapshot.taken_at
        # The status that says so may not be visible yet, and its counts go on changing.
        event = event_for(cache, status)
        if event is not None and self._memory.is_new("Event", cache.namespace, cache.name, event.reason, now):
            yield event
        purged = event_of(cache, status)
        if purged is not None and self._memory.is_new("PurgeEvent", cache.namespace, cache.name, purged.reason, now):
            yield purged

    def _request(self, standing: Standing) -> Request | None:
        """A refresh that is asked for: it begins once the status shows that it was heeded, so that none is repeated."""
        cache, now = standing.cache, self._snapshot.taken_at
        mark = asked(cache).mark
        if mark is None or cache.error:
            return None
        return Request(mark, self._memory.refreshes.begun_at(cache, mark, now))
