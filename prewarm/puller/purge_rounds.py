"""Which removals are asked for? By annotation, by an edit of a cache with deletionPolicy Purge, or by its deletion."""

import hashlib
from enum import StrEnum

from msgspec import Struct

from prewarm.model.image_caches import DeletionPolicy, ImageCache, ImageCacheStatus
from prewarm.puller.requests import Ask


class RoundKind(StrEnum):
    """What asks for removals."""

    REQUEST = "Request"
    """The annotation prewarm.dev/purge: everything that was pulled for the cache goes."""
    EDIT = "Edit"
    """deletionPolicy Purge: what the cache does not ask for any more goes."""
    DELETION = "Deletion"
    """A cache with deletionPolicy Purge was deleted: everything that was pulled for it goes."""


class Round(Struct, frozen=True):
    """One round of removals. Each image is tried in it until it is gone, or stays for a reason."""

    id: str
    kind: RoundKind
    namespace: str
    name: str
    uid: str

    @property
    def cache(self) -> str:
        """The cache as NodeImage records name it."""
        return f"{self.namespace}/{self.name}"


def round_of(cache: ImageCache) -> Round | None:
    """What a living cache asks to be removed now; None if nothing."""
    if is_purged(cache):
        return _round(cache, RoundKind.REQUEST, str(cache.status.purged_at))
    if cache.deletion_policy is DeletionPolicy.PURGE and not cache.error and cache.deleted_at is None:
        return _round(cache, RoundKind.EDIT, str(cache.generation))
    return None


def deletion_of(uid: str, namespace: str, name: str) -> Round:
    """What the deletion of a cache asks for."""
    return _round(ImageCache(namespace, name, uid), RoundKind.DELETION, "")


def _round(cache: ImageCache, kind: RoundKind, part: str) -> Round:
    digest = hashlib.sha256(f"{cache.uid}|{kind.value}|{part}".encode()).hexdigest()
    return Round(digest[:12], kind, cache.namespace, cache.name, cache.uid)


def is_purged(cache: ImageCache) -> bool:
    """Whether the cache was purged by annotation, and neither refreshed by annotation nor edited since."""
    status = cache.status
    if status.purged_at is None or status.purged_generation != cache.generation:
        return False
    return status.requested_at is None or status.requested_at <= status.purged_at


def asked(cache: ImageCache) -> Ask:
    """The purge that its annotation asks for."""
    return Ask(cache.purge_request, cache.status.purge_handled)


def purge_begins(status: ImageCacheStatus, now: float) -> float:
    """When a purge that is asked for now is said to begin, in whole seconds: later than the last purge and refresh."""
    latest = max(status.requested_at or 0.0, (status.purged_at or 0.0) + 1.0)
    return max(float(int(now)), latest)
