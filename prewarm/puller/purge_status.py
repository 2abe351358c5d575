"""What do people see of removals? The condition Purged, what was heeded, and an Event when the verdict changes."""

from enum import StrEnum

from msgspec.structs import replace

from prewarm.api.image_cache_status import bounded_status
from prewarm.model.image_caches import Condition, DeletionPolicy, ImageCache, ImageCacheStatus
from prewarm.model.intents import IMAGE_CACHES, RecordEvent
from prewarm.puller.purge import Purge, Tally
from prewarm.puller.purge_memory import PurgeMemory
from prewarm.puller.purge_rounds import asked, is_purged, purge_begins

PURGED = "Purged"
_OFF = "removing images is switched off (setting purge): they stay until the kubelet needs the space"


class PurgeReason(StrEnum):
    """Reasons of the condition Purged."""

    SWITCHED_OFF = "SwitchedOff"
    """False: the operator has not switched removing images on; nothing is removed."""
    REMOVING = "Removing"
    """False: pods remove images, or wait for their turn or for their node."""
    REFUSED = "Refused"
    """False: the API server takes no pod that removes images; it is asked again every 30 s."""
    IMAGES_STAY = "ImagesStay"
    """False: some images stay, the message says how many and why; the rest is gone."""
    REMOVED = "Removed"
    """True: nothing that was to be removed is on any node."""


class PurgeStatus:
    """Adds what purging has to say to the status of caches."""

    def __init__(self, purge: Purge, memory: PurgeMemory, *, enabled: bool) -> None:
        self._purge = purge
        self._memory = memory
        self._enabled = enabled

    def told(self, cache: ImageCache) -> object:
        """Changes whenever the status may have to, as far as purging goes."""
        return self._purge.tallies.get(cache.uid)

    def amend(self, cache: ImageCache, status: ImageCacheStatus, now: float) -> ImageCacheStatus:
        """A cache's status with what became of purges and removals."""
        tally = self._purge.tallies.get(cache.uid)
        before = cache.status
        status = replace(status, purge_handled=asked(cache).recorded, purged_at=None, purged_generation=0)
        mark = asked(cache).mark
        if mark is not None:
            status = replace(status, purge_handled=mark)
            if self._enabled:
                at = self._begins(cache, mark, now)
                status = replace(status, purged_at=at, purged_generation=cache.generation)
        else:
            self._memory.begun.pop(cache.uid, None)
            if is_purged(cache):
                status = replace(status, purged_at=before.purged_at, purged_generation=before.purged_generation)
        if tally is not None:
            status = replace(status, removal_round=tally.round.id, removal_total=tally.total)
        else:
            status = replace(status, removal_round=before.removal_round, removal_total=before.removal_total)
        condition = self._condition(cache, tally, asked=mark is not None)
        others = tuple(known for known in status.conditions if known.type != PURGED)
        if condition is None:
            return bounded_status(replace(status, conditions=others))
        old = next((known for known in before.conditions if known.type == PURGED), None)
        since = old.since if old is not None and old.status == condition.status else float(int(now))
        return bounded_status(replace(status, conditions=(*others, replace(condition, since=since))))

    def _begins(self, cache: ImageCache, mark: str, now: float) -> float:
        known = self._memory.begun.get(cache.uid)
        if known is None or known[0] != mark:
            known = self._memory.begun[cache.uid] = (mark, purge_begins(cache.status, now))
        return known[1]

    def _condition(self, cache: ImageCache, tally: Tally | None, *, asked: bool) -> Condition | None:
        if not self._enabled:
            if asked or cache.deletion_policy is DeletionPolicy.PURGE:
                return Condition(PURGED, False, PurgeReason.SWITCHED_OFF, _OFF, 0.0)
        elif asked:
            return Condition(PURGED, False, PurgeReason.REMOVING, "what was pulled is looked for", 0.0)
        elif tally is not None:
            return _verdict(tally)
        elif is_purged(cache):
            return Condition(PURGED, True, PurgeReason.REMOVED, "nothing that was pulled for it is known any more", 0.0)
        # What was said last stays until the images are wanted again.
        known = next((known for known in cache.status.conditions if known.type == PURGED), None)
        if known is None or (known.reason == PurgeReason.SWITCHED_OFF and self._enabled):
            return None
        return known if cache.status.observed_generation == cache.generation and not _lifted(cache) else None


def _lifted(cache: ImageCache) -> bool:
    return cache.status.purged_at is not None and not is_purged(cache)


def _verdict(tally: Tally) -> Condition:
    said = words_of(tally)
    if tally.open:
        reason = PurgeReason.REFUSED if tally.refused else PurgeReason.REMOVING
        return Condition(PURGED, False, reason, said, 0.0)
    if tally.stays:
        return Condition(PURGED, False, PurgeReason.IMAGES_STAY, said, 0.0)
    return Condition(PURGED, True, PurgeReason.REMOVED, said, 0.0)


def words_of(tally: Tally) -> str:
    """How far removals are, with counts by reason."""
    said = f"{tally.gone} of {tally.total} image and node pairs are gone"
    staying = sum(count for _, count in tally.stays)
    if staying:
        said += f", {staying} stay: " + ", ".join(f"{count} {result.value}" for result, count in tally.stays)
    if tally.open:
        said += f", {tally.open} to go"
    if tally.waiting:
        said += f" ({tally.waiting} on nodes that start no pod now)"
    return f"{said}; {tally.trouble}" if tally.trouble else said


def event_of(cache: ImageCache, status: ImageCacheStatus) -> RecordEvent | None:
    """An Event for people if the verdict on removals changed."""
    old = next((known for known in cache.status.conditions if known.type == PURGED), None)
    new = next((known for known in status.conditions if known.type == PURGED), None)
    if new is None or (old is not None and (old.status, old.reason) == (new.status, new.reason)):
        return None
    if new.reason == PurgeReason.REMOVING:
        return None
    return _event(cache.namespace, cache.name, cache.uid, new.reason, new.message, warning=not new.status)


def event_of_deleted(tally: Tally) -> RecordEvent:
    """The last word on a cache that was deleted: there is no status any more."""
    asked = tally.round
    reason = PurgeReason.IMAGES_STAY if tally.stays else PurgeReason.REMOVED
    return _event(asked.namespace, asked.name, asked.uid, reason, words_of(tally), warning=bool(tally.stays))


def _event(namespace: str, name: str, uid: str, reason: str, message: str, *, warning: bool) -> RecordEvent:
    return RecordEvent(IMAGE_CACHES, namespace, name, uid, f"Purge{reason}", message[:1000], warning)
