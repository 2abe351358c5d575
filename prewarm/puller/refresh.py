"""When did the last refresh of an ImageCache begin, and when does the next one?

All follows from the object and the time: nobody has to have been there when a refresh was due, and a restart repeats
none. What a refresh has to do follows from what is older than its beginning: failures, evidence, pulls of tags that
may have moved since.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim
from msgspec import Struct

from prewarm.model.image_caches import ImageCache, Schedule
from prewarm.model.images import PullPolicy, parse_reference
from prewarm.model.times import FUTURE_SECONDS, believed
from prewarm.puller.requests import Ask

SHORTEST_SECONDS = 10.0
"""Intervals below this one are taken for it: every refresh may cost a pod on every node."""
SPREAD = 0.1
"""Part of the interval by which an ImageCache is faster or slower than others, so that they do not stay together."""


class Refresh(Struct, frozen=True):
    """Refreshes of one ImageCache as of one moment; times are Unix seconds."""

    at: float
    """When the last one began; before the first, the cache's creation."""
    anew_at: float
    """When the last one began after which failures do not count any more: by request or schedule, or the creation."""
    next_at: float | None = None
    """When the next one is due; None if only a request begins one."""


class Request(Struct, frozen=True):
    """A refresh that is asked for by annotation."""

    mark: str
    """What is recorded of it."""
    at: float
    """When it begins, Unix seconds."""


def refresh_of(cache: ImageCache, now: float) -> Refresh:
    """Where a cache stands between two refreshes.

    Args:
        cache: completed by the settings; with completion Once its interval does not count.
        now: Unix seconds.
    """
    created = float(int(cache.created_at))
    requested = _believed(cache, now)
    if requested is None:
        requested = created
    last = next_at = None
    if cache.schedule is not None:
        last, next_at = times_of(cache.schedule, now)
    anew_at = max(created, requested, last if last is not None and last > created else created)
    tick = created
    if cache.refresh_seconds and not cache.completion.once:
        period = max(cache.refresh_seconds, SHORTEST_SECONDS) * _pace(cache.uid)
        passed = max(0, int((now - created) // period))
        tick = float(int(created + passed * period))
        following = created + (passed + 1) * period
        next_at = following if next_at is None else min(next_at, following)
    return Refresh(max(anew_at, tick), anew_at, next_at)


def _believed(cache: ImageCache, now: float) -> float | None:
    """When the last request began, if one did and no wrong clock recorded it."""
    return believed(cache.status.requested_at or 0.0, now) or None


def _pace(uid: str) -> float:
    fraction = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) / 2**32
    return 1 - SPREAD + 2 * SPREAD * fraction


def times_of(schedule: Schedule, now: float) -> tuple[float | None, float | None]:
    """The last time of a schedule up to now, and the first one after it; None where there is none.

    Around changes of the clocks as cron does it: what would be skipped comes at once, what would come twice comes once.
    """
    zone = ZoneInfo(schedule.time_zone)
    # Strictly before and strictly after: whole seconds on either side.
    before = CronSim(schedule.cron, datetime.fromtimestamp(int(now) + 1, zone), reverse=True)
    after = CronSim(schedule.cron, datetime.fromtimestamp(int(now), zone))
    last, following = next(before, None), next(after, None)
    return (
        None if last is None else last.timestamp(),
        None if following is None else following.timestamp(),
    )


def asked(cache: ImageCache) -> Ask:
    """The refresh that its annotation asks for."""
    return Ask(cache.refresh_request, cache.status.refresh_handled)


@lru_cache(maxsize=4096)
def moves(image: str) -> bool:
    """Whether the reference may come to name another image: the tag is `latest` or missing, and there is no digest."""
    try:
        reference = parse_reference(image)
    except ValueError:
        return False
    return not reference.digest and reference.tag in {"", "latest"}


def asks_again(cache: ImageCache, image: str) -> bool:
    """Whether a refresh has every node ask the registry for the image, though it is there."""
    return moves(image) or (cache.pull_policy is PullPolicy.ALWAYS and "@" not in image)


class Refreshes:
    """Remembers between two moments what was computed, and when a request was first seen.

    Losing it repeats and loses nothing: a request counts from the time that the status names.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], Refresh]] = {}
        self._requests: dict[str, tuple[str, float]] = {}

    def of(self, cache: ImageCache, now: float) -> Refresh:
        """The same as `refresh_of`."""
        if cache.uid in self._requests and asked(cache).mark is None:
            del self._requests[cache.uid]
        requested = _believed(cache, now)
        given = (cache.created_at, cache.schedule, cache.refresh_seconds, cache.completion, requested)
        known = self._known.get(cache.uid)
        if known is not None and known[0] == given:
            refresh = known[1]
            if refresh.at <= now and (refresh.next_at is None or now < refresh.next_at):
                return refresh
        refresh = refresh_of(cache, now)
        self._known[cache.uid] = (given, refresh)
        return refresh

    def begun_at(self, cache: ImageCache, mark: str, now: float) -> float:
        """When a request was first seen, in whole seconds: it stays the same until the status shows it."""
        if not cache.status.observed_generation and cache.created_at:
            # It came with the object, whose creation is a beginning itself.
            return float(int(cache.created_at))
        known = self._requests.get(cache.uid)
        if known is None or known[0] != mark:
            # Later than the last one, or a run that ended in this second would count for it.
            known = (mark, max(float(int(now)), (cache.status.requested_at or 0.0) + 1.0))
            if known[1] > now + FUTURE_SECONDS:
                known = (mark, float(int(now)))
            self._requests[cache.uid] = known
        return known[1]

    def forget_others(self, uids: Collection[str]) -> None:
        """Drop what is known of caches that are gone."""
        if len(self._known) > len(uids):
            self._known = {uid: known for uid, known in self._known.items() if uid in uids}
        self._requests = {uid: known for uid, known in self._requests.items() if uid in uids}
