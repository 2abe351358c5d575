"""What do people see on an ImageCache? Counts, conditions, failures; and an Event when the verdict changes."""

from collections import Counter
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from prewarm.api.image_cache_status import MAX_FAILURES, bounded_status
from prewarm.model.image_caches import Condition, ImageCache, ImageCacheStatus, PullFailure
from prewarm.model.intents import IMAGE_CACHES, RecordEvent
from prewarm.puller.lifecycle import FINISHED, Course, Tally, course_of, finished, started_at
from prewarm.puller.notes import NOTES
from prewarm.puller.pairs import Pair, PairState
from prewarm.puller.refresh import Request, asked
from prewarm.puller.standing import Standing

READY = "Ready"
PROGRESSING = "Progressing"
DEGRADED = "Degraded"
_OURS = frozenset({READY, PROGRESSING, DEGRADED, FINISHED})
"""Conditions that follow from pairs."""
_SETTLED = frozenset({"Warm", "NoImages", "NoNodes", "AllSkipped"})
"""Reasons of Ready with which the work rests."""
_MAX_NAMED = 5
"""Entries of cacheSpec named in a message."""


def status_of(
    standing: Standing,
    ordered: Collection[tuple[str, str]],
    now: float,
    request: Request | None = None,
    notes: Sequence[Condition] = (),
) -> ImageCacheStatus:
    """The status as it should be, bounded; it equals the cache's own if nothing changed.

    Args:
        standing: the cache and its pairs; what its present status says of times is kept where it still holds.
        ordered: node and image of pairs for which a pod is being ordered now.
        now: Unix seconds.
        request: a refresh that is asked for, and begins by being written down.
        notes: further conditions, without times.
    """
    now = float(int(now))
    cache = standing.cache
    course = standing.course if standing.course is not None else course_of(cache, now)
    if course.finished_at is not None:
        return bounded_status(_noted(cache, cache.status, request, now))
    counts, again = _counted(standing, ordered)
    failing = list(standing.failing_pairs())
    before = cache.status
    working = counts[PairState.ACTIVE] > 0
    settled = not working and not counts[PairState.PENDING]
    same = before.observed_generation == cache.generation
    started = started_at(cache, course.refresh) if cache.completion.once else before.started_at if same else None
    completed = before.completed_at if same else None
    conditions = _conditions(standing, failing, counts, again)
    end = None if cache.error else finished(cache, course, _tally(standing, failing, counts), now)
    fresh = ImageCacheStatus(
        observed_generation=cache.generation,
        conditions=(
            *(_since(condition, before, now) for condition in conditions),
            *(() if end is None else (_end_since(end, before, course, now),)),
            *(condition for condition in before.conditions if condition.type not in _OURS | NOTES),
            *(_since(condition, before, now) for condition in notes),
        ),
        desired=counts.total(),
        active=counts[PairState.ACTIVE],
        succeeded=counts[PairState.SUCCEEDED],
        failed=counts[PairState.FAILED],
        skipped=counts[PairState.SKIPPED],
        reasons=tuple(sorted((reason, count) for reason, count in standing.reasons.items() if count > 0)),
        failures=_failures(failing),
        started_at=started if started is not None or not (working or cache.completion.once) else now,
        completed_at=(completed if completed is not None else now) if settled and counts.total() else None,
        refreshed_at=_refreshed_at(before, course, standing, cache.created_at),
        requested_at=before.requested_at,
        refresh_handled=before.refresh_handled,
        purge_handled=before.purge_handled,
    )
    return bounded_status(_noted(cache, fresh, request, now))


def _counted(standing: Standing, ordered: Collection[tuple[str, str]]) -> tuple[Counter[PairState], Counter[PairState]]:
    """All pairs by state, and those asked for again, once what is being ordered is under way."""
    counts, again = standing.counts.copy(), standing.again.copy()
    for node in {node for node, _ in ordered}:
        for pair in standing.open_on(node):
            if (node, pair.image) not in ordered:
                continue
            counts[pair.counted] -= 1
            counts[PairState.ACTIVE] += 1
            if pair.there:
                again[pair.state] -= 1
                again[PairState.ACTIVE] += 1
    return counts, again


def _refreshed_at(before: ImageCacheStatus, course: Course, standing: Standing, created_at: float) -> float | None:
    """When the last refresh began that had anything to do: the others are not worth a write."""
    at = course.refresh.at
    return at if standing.open_total and at > max(created_at, before.refreshed_at or 0.0) else before.refreshed_at


def _noted(cache: ImageCache, status: ImageCacheStatus, request: Request | None, now: float) -> ImageCacheStatus:
    """The status with what became of the last request; one that is heeded begins a new run."""
    if request is None:
        return replace(status, refresh_handled=asked(cache).recorded)
    conditions = status.conditions
    if any(condition.type == FINISHED and condition.status for condition in conditions):
        # Until the nodes were looked at again, nothing else is known; who waits has to see that.
        begun = {
            FINISHED: Condition(FINISHED, False, "Running", "the work has not ended", now),
            PROGRESSING: Condition(PROGRESSING, True, "Refreshing", "the nodes are looked at again", now),
        }
        conditions = tuple(begun.get(condition.type, condition) for condition in conditions)
    return replace(
        status,
        conditions=conditions,
        refreshed_at=request.at,
        requested_at=request.at,
        refresh_handled=request.mark,
    )


def _tally(standing: Standing, failing: Sequence[Pair], counts: Counter[PairState]) -> Tally:
    for_good = sum(1 for pair in failing if pair.state is PairState.FAILED and pair.due_at is None)
    return Tally(counts[PairState.SUCCEEDED], counts[PairState.SKIPPED], for_good, standing.open_total - for_good)


def _end_since(end: Condition, before: ImageCacheStatus, course: Course, now: float) -> Condition:
    """When the present run ended: the end of an earlier one does not count for it."""
    told = _since(end, before, now)
    return told if not end.status or told.since >= course.refresh.anew_at else replace(told, since=now)


def _conditions(
    standing: Standing, failing: Sequence[Pair], counts: Counter[PairState], again: Counter[PairState]
) -> list[Condition]:
    cache = standing.cache
    if cache.error:
        return [
            Condition(READY, False, "InvalidSpec", cache.error, 0.0),
            Condition(PROGRESSING, False, "InvalidSpec", "nothing is pulled until the spec is mended", 0.0),
            Condition(DEGRADED, True, "InvalidSpec", cache.error, 0.0),
        ]
    said = _progress(counts, again)
    # What is there stays there while it is asked for again, whatever comes of that.
    missing = counts - Counter({state: again[state] for state in (PairState.ACTIVE, PairState.FAILED)})
    missing[PairState.SUCCEEDED] = _there(counts, again)
    return [_ready(standing, missing, said), _progressing(standing, counts, said), _degraded(failing)]


def _there(counts: Counter[PairState], again: Counter[PairState]) -> int:
    return counts[PairState.SUCCEEDED] + again[PairState.ACTIVE] + again[PairState.FAILED]


def _progress(counts: Counter[PairState], again: Counter[PairState]) -> str:
    """How far it is, in words; a percentage is rounded down, so that 100 % says that all is there."""
    total, there = counts.total(), _there(counts, again)
    percent = f" ({100 * there // total} %)" if total else ""
    said = f"{there} of {total} image and node pairs are there{percent}"
    words = (
        (counts[PairState.ACTIVE] - again[PairState.ACTIVE], "being pulled"),
        (again[PairState.ACTIVE], "being asked for again"),
        (counts[PairState.PENDING], "waiting"),
        (counts[PairState.FAILED], "failed"),
        (counts[PairState.SKIPPED], "skipped"),
    )
    for count, word in words:
        said += f", {count} {word}" if count else ""
    return said


def _ready(standing: Standing, counts: Counter[PairState], said: str) -> Condition:
    cache, idle = standing.cache, standing.idle_entries
    if not counts.total():
        if not idle:
            return Condition(READY, True, "NoImages", "no image is asked for", 0.0)
        return Condition(READY, False, "NoNodes", _no_nodes(cache, idle), 0.0)
    if counts[PairState.ACTIVE] or counts[PairState.PENDING]:
        return Condition(READY, False, "Pulling", said, 0.0)
    if counts[PairState.FAILED]:
        return Condition(READY, False, "PullsFailed", said, 0.0)
    if idle:
        # As with one entry alone: what was meant for these nodes is nowhere.
        return Condition(READY, False, "NoNodes", f"{said}; {_no_nodes(cache, idle)}", 0.0)
    if not counts[PairState.SUCCEEDED]:
        return Condition(READY, False, "AllSkipped", said, 0.0)
    return Condition(READY, True, "Warm", said, 0.0)


def _no_nodes(cache: ImageCache, idle: Sequence[int]) -> str:
    if len(cache.lists) == 1:
        return "no node matches; those that come are taken up"
    named = ", ".join(f"cacheSpec[{index}]" for index in idle[:_MAX_NAMED])
    more = f" and {len(idle) - _MAX_NAMED} more" if len(idle) > _MAX_NAMED else ""
    return f"no node matches {named}{more}; those that come are taken up"


def _progressing(standing: Standing, counts: Counter[PairState], said: str) -> Condition:
    cache = standing.cache
    active = counts[PairState.ACTIVE] > 0
    if cache.suspend:
        return Condition(PROGRESSING, active, "Suspended", "spec.suspend: no further pulls are ordered", 0.0)
    if active or counts[PairState.PENDING]:
        return Condition(PROGRESSING, True, "Pulling", said, 0.0)
    return Condition(PROGRESSING, False, "Settled", said, 0.0)


def _degraded(failing: Sequence[Pair]) -> Condition:
    reasons = Counter(pair.reason for pair in failing)
    if not reasons:
        return Condition(DEGRADED, False, "NoFailures", "no pull failed", 0.0)
    ranked = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    words = ", ".join(f"{count} {reason}" for reason, count in ranked)
    pairs = "1 pair" if reasons.total() == 1 else f"{reasons.total()} pairs"
    return Condition(DEGRADED, True, "PullsFailed", f"{pairs} failed: {words}", 0.0)


def _since(condition: Condition, before: ImageCacheStatus, now: float) -> Condition:
    old = next((old for old in before.conditions if old.type == condition.type), None)
    since = old.since if old is not None and old.status == condition.status else now
    return Condition(condition.type, condition.status, condition.reason, condition.message, since)


def _failures(failing: Sequence[Pair]) -> tuple[PullFailure, ...]:
    """At most 20 failures: one of every image and reason first, so that a thousand equal ones hide no other."""
    seen: Counter[tuple[str, str]] = Counter()
    ranked = []
    for pair in sorted(failing, key=lambda pair: (pair.image, pair.reason, pair.node)):
        ranked.append((seen[pair.image, pair.reason], pair.image, pair.reason, pair.node, pair))
        seen[pair.image, pair.reason] += 1
    ranked.sort(key=lambda entry: entry[:4])
    return tuple(
        PullFailure(pair.image, pair.node, pair.reason, pair.message, pair.attempts, float(int(pair.failed_at)))
        for *_, pair in ranked[:MAX_FAILURES]
    )


def verdict(status: ImageCacheStatus) -> tuple[object, ...]:
    """What has to be told at once; all else in a status are counts on their way."""
    return (
        status.observed_generation,
        status.requested_at,
        status.refresh_handled,
        status.purged_at,
        status.purge_handled,
        tuple((condition.type, condition.status, condition.reason) for condition in status.conditions),
        status.failures[:1],
    )


def event_for(cache: ImageCache, status: ImageCacheStatus) -> RecordEvent | None:
    """An Event for people if the verdict on a cache changed: warm, failing, faulty, or without nodes."""
    old = {condition.type: (condition.status, condition.reason) for condition in cache.status.conditions}
    new = {condition.type: condition for condition in status.conditions}
    degraded, ready = new[DEGRADED], new[READY]
    if degraded.status:
        if old.get(DEGRADED) == (True, degraded.reason):
            return None
        first = next(iter(status.failures), None)
        words = f": {first.image} on {first.node}: {first.message}" if first is not None else ""
        return _event(cache, degraded.reason, f"{degraded.message}{words}", warning=True)
    if ready.reason in _SETTLED and old.get(READY) != (ready.status, ready.reason):
        return _event(cache, ready.reason, ready.message, warning=not ready.status)
    return None


def _event(cache: ImageCache, reason: str, message: str, *, warning: bool) -> RecordEvent:
    # The API server takes at most 1,024 characters.
    return RecordEvent(IMAGE_CACHES, cache.namespace, cache.name, cache.uid, reason, message[:1000], warning)
