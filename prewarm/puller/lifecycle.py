"""When does the work on an ImageCache begin, and when has it ended?

Continuous: never. Once: a run begins with the creation, an edit of the spec, a time of the schedule or a request, and
ends when every pair is settled or the deadline has passed. Then nothing is pulled for it, and its status stands still,
until the next run.
"""

from msgspec import Struct

from prewarm.model.image_caches import Condition, ImageCache
from prewarm.puller.purge_rounds import is_purged
from prewarm.puller.refresh import Refresh, refresh_of

FINISHED = "Finished"
"""Condition type, only with completion Once."""
SKIPPING_SECONDS = 30.0
"""How long a run waits for nodes that cannot take it: many of them have only just joined."""


class Course(Struct, frozen=True):
    """Where an ImageCache stands in its life."""

    refresh: Refresh
    over: bool = False
    """Whether the deadline of its run has passed."""
    finished_at: float | None = None
    """When its run ended, as the status tells; None while it goes on."""

    purged: bool = False
    """Whether it was purged by annotation, and not refreshed by annotation since."""

    @property
    def rests(self) -> bool:
        """Whether nothing more is to be pulled in this run."""
        return self.over or self.purged or self.finished_at is not None


class Tally(Struct, frozen=True):
    """How many pairs of a cache stand how."""

    succeeded: int
    skipped: int
    failed: int
    """For good: not tried again in this run."""
    open: int
    """Under way, waiting, or to be tried again."""


def course_of(cache: ImageCache, now: float, refresh: Refresh | None = None) -> Course:
    """Where a cache stands; `refresh` if it is at hand already."""
    refresh = refresh if refresh is not None else refresh_of(cache, now)
    deadline = deadline_of(cache, refresh)
    return Course(
        refresh,
        over=deadline is not None and now >= deadline and not cache.suspend,
        finished_at=finished_at(cache, refresh),
        purged=is_purged(cache),
    )


def started_at(cache: ImageCache, refresh: Refresh) -> float | None:
    """When the present run began, as the status tells; None if it does not yet."""
    status = cache.status
    if not cache.completion.once or status.observed_generation != cache.generation or status.started_at is None:
        return None
    return status.started_at if status.started_at >= refresh.anew_at else None


def deadline_of(cache: ImageCache, refresh: Refresh) -> float | None:
    """When the present run is over, whatever is left; None without a deadline. Suspended, it does not run out."""
    begun, seconds = started_at(cache, refresh), cache.completion.deadline_seconds
    return None if begun is None or seconds is None or cache.suspend else begun + seconds


def finished_at(cache: ImageCache, refresh: Refresh) -> float | None:
    """When the present run ended, as the status tells; None if it goes on."""
    if not cache.completion.once or cache.status.observed_generation != cache.generation:
        return None
    for condition in cache.status.conditions:
        if condition.type == FINISHED and condition.status and condition.since >= refresh.anew_at:
            return condition.since
    return None


def deletion_at(cache: ImageCache, course: Course) -> float | None:
    """When the ImageCache is to be deleted; None if it stays."""
    if course.finished_at is None or cache.completion.ttl_seconds is None:
        return None
    return course.finished_at + cache.completion.ttl_seconds


def finished(cache: ImageCache, course: Course, tally: Tally, now: float) -> Condition | None:
    """The condition Finished of a run that has not ended before; None with completion Continuous."""
    if not cache.completion.once:
        return None
    reason, message = _end(cache, course, tally, now) or ("", "")
    if reason:
        return Condition(FINISHED, True, reason, message, now)
    return Condition(FINISHED, False, "Suspended" if cache.suspend else "Running", "the work has not ended", 0.0)


def _end(cache: ImageCache, course: Course, tally: Tally, now: float) -> tuple[str, str] | None:
    """Reason and words of the end; None if it has not come."""
    if cache.suspend:
        return None
    if course.over:
        if tally.failed or tally.open or not tally.succeeded:
            return "DeadlineExceeded", "activeDeadlineSeconds passed; what was not done counts as failed"
        return "Succeeded", "everything that could be done was done"
    if not any(entry.images for entry in cache.lists):
        return "NoImages", "no image is asked for"
    if tally.open or not (tally.succeeded or tally.skipped or tally.failed):
        return None
    if tally.skipped and not _waited(cache, course, now):
        return None
    if tally.failed:
        return "PullsFailed", "every pull was tried as often as attempts.limit says, and some failed"
    if not tally.succeeded:
        return "AllSkipped", "no node could take it; set prewarm.dev/refresh to try again"
    return "Succeeded", "everything that could be done was done"


def _waited(cache: ImageCache, course: Course, now: float) -> bool:
    begun = started_at(cache, course.refresh)
    return begun is not None and now >= begun + SKIPPING_SECONDS


def wake_at(cache: ImageCache, course: Course, now: float, *, skipped: bool) -> float | None:
    """When time alone changes something about a run; None if nothing does. `skipped`: whether it waits for nodes."""
    if course.finished_at is not None:
        return deletion_at(cache, course)
    begun = started_at(cache, course.refresh)
    if begun is None or cache.suspend:
        return None
    times = [deadline_of(cache, course.refresh), begun + SKIPPING_SECONDS if skipped else None]
    return min((time for time in times if time is not None and time > now), default=None)
