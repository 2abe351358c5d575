"""From a snapshot to everything that is to be written so that ImageCaches come true."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct

from prewarm.api.image_cache_status import status_manifest
from prewarm.api.names import ANNOTATION_REFRESH
from prewarm.history import History
from prewarm.model.image_caches import Condition
from prewarm.model.intents import IMAGE_CACHES, Apply, Create, Delete, Intent, RemoveAnnotation
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence import warmth
from prewarm.puller.admission import Admission, Admitted
from prewarm.puller.hold import Holds
from prewarm.puller.lifecycle import deletion_at, wake_at
from prewarm.puller.memory import PullerMemory
from prewarm.puller.notes import listen, notes_on
from prewarm.puller.outcome import GRACE_SECONDS
from prewarm.puller.pairs import Pairs, PairState
from prewarm.puller.pods import create
from prewarm.puller.purge import Purge
from prewarm.puller.purge_memory import RememberedCache
from prewarm.puller.purge_status import PurgeStatus, event_of, event_of_deleted
from prewarm.puller.quota import Headroom
from prewarm.puller.reasons import WithheldReason
from prewarm.puller.records import Records
from prewarm.puller.refresh import Request, asked
from prewarm.puller.retention import Retention
from prewarm.puller.settings import PullerSettings
from prewarm.puller.standing import Standing
from prewarm.puller.status import event_for, status_of, verdict
from prewarm.puller.work import Work


class PullerDecision(Struct, frozen=True):
    """What is to be written, and when to look again even if nothing happens."""

    intents: tuple[Intent, ...]
    wake_at: float | None = None
    """Unix seconds; None if only a change in the cluster gives a reason."""
    in_flight: int = 0
    """Puller pods under way, those ordered now included."""
    withheld: Mapping[WithheldReason, int] = {}
    """Pairs that are due and wait, by reason."""
    remembered: tuple[RememberedCache, ...] | None = None
    """Caches to be purged once they are gone, to be stored before anything is pulled; None where purging is off."""


def reconcile(
    snapshot: ClusterSnapshot,
    settings: PullerSettings,
    history: History,
    memory: PullerMemory | None = None,
) -> PullerDecision:
    """Decide on pods to create and delete, NodeImage records and ImageCache status to write, Events to record.

    Level-triggered: everything follows from the snapshot. `memory` only bridges the time until a write is visible; with
    a fresh one the same pods get the same names, so nothing is pulled twice.

    Args:
        snapshot: the cluster.
        settings: budgets and the shape of pods.
        history: estimates of pull times, which tell small images.
        memory: kept by the caller from one call to the next; tell it of refused and lost creates.
    """
    memory = memory if memory is not None else PullerMemory()
    snapshot = memory.limits.apply(memory.defaults.apply(snapshot, settings), history)
    memory.catch_up(snapshot)
    known = warmth(snapshot, memory.warmth)
    work = Work(snapshot, memory.orders, memory.failed_at, memory.hearsay)
    listen(memory.hearsay, snapshot, work)
    headroom = Headroom(snapshot, memory.orders)
    courses = memory.courses(snapshot)
    pairs = Pairs(snapshot, known, work, memory.refusals, courses, memory.doubts)
    changed = memory.read_nodes(snapshot, known)
    restless = {*work.nodes, *(refusal.order.node for refusal in memory.refusals)}
    standings = memory.standings(snapshot, pairs, changed, restless, courses)
    retention = Retention(work, settings, snapshot.taken_at)
    holds = Holds(snapshot, settings, known, work, memory)
    kept = retention.kept | holds.kept
    purge = Purge(snapshot, settings.purge, memory.purge, standings, work, kept)
    admission = Admission(snapshot, settings, history, known, work, pairs, memory.refusals, headroom)
    admitted = admission.admit(standing for standing in standings if standing.cache.uid not in purge.resting)
    intents = list(_ordered(admitted, memory, work, headroom, settings))
    resting = frozenset(uid for uid, course in courses.items() if course.rests)
    due = memory.deferral.due(changed.observed, snapshot, work, settings)
    due |= purge.nodes | holds.changed(memory.held_nodes)
    waiting = memory.deferral.waiting - due
    records = Records(
        snapshot, known, work, resting, kept, waiting=waiting, held=holds.images, yielding=headroom.refused
    )
    intents.extend(records.writes(memory, due, purge))
    memory.held_nodes = frozenset(holds.images) | memory.held_nodes.intersection(records.unrecorded)
    intents.extend(records.deletions(memory))
    intents.extend(_purged(purge, records, memory, snapshot.taken_at))
    wake_times = [
        *_wake_times(snapshot, standings, admitted, work),
        *_course_times(standings, memory, snapshot),
        *memory.wake_times(),
        *retention.wake_times,
        *holds.wake_times,
        *(at for at in (purge.wake_at, memory.deferral.wake_at) if at is not None),
    ]
    purges = PurgeStatus(purge, memory.purge, enabled=settings.purge.enabled)
    for standing in standings:
        intents.extend(_follow_up(standing, memory, snapshot.taken_at))
        describe = partial(notes_on, standing, snapshot, headroom, memory.hearsay, admission.waiting_for_quota)
        written, again_at = _tell(standing, admitted, settings, memory, purges, snapshot.taken_at, describe)
        intents.extend(written)
        if again_at is not None:
            wake_times.append(again_at)
    return PullerDecision(
        tuple(intents), min(wake_times, default=None), work.total, admitted.withheld, purge.remembered
    )


def _ordered(
    admitted: Admitted, memory: PullerMemory, work: Work, headroom: Headroom, settings: PullerSettings
) -> Iterator[Intent]:
    """The pods that were let through; remembered until they are visible."""
    for order in admitted.orders:
        memory.remember(order)
        resources = headroom.resources(order.namespace, order.containers)
        yield create(order, work.caches[order.cache_uid], settings, resources)


def _purged(purge: Purge, records: Records, memory: PullerMemory, now: float) -> Iterator[Intent]:
    """Pods that remove images, annotations that were heeded, and the last word on caches that are gone."""
    for intent in (*purge.intents, *purge.deletions(records.unrecorded)):
        if isinstance(intent, Create) or memory.is_new(
            f"Purge{type(intent).__name__}", intent.namespace, intent.name, intent, now
        ):
            yield intent
    for tally in purge.ended:
        yield event_of_deleted(tally)


def _tell(
    standing: Standing,
    admitted: Admitted,
    settings: PullerSettings,
    memory: PullerMemory,
    purges: PurgeStatus,
    now: float,
    describe: Callable[[], Sequence[Condition]],
) -> tuple[list[Intent], float | None]:
    """Status and Event of one cache if they changed; counts alone wait for the interval, until the time returned."""
    cache = standing.cache
    ordered = {
        (order.node, image) for order in admitted.orders if order.cache_uid == cache.uid for image in order.images
    }
    known, course = standing.told, standing.course
    # Of a run that goes on, time alone may change the verdict.
    right = not ordered and known is not None and known[0] == standing.revision and known[1] is cache
    right = right and (not cache.completion.once or (course is not None and course.finished_at is not None))
    right = right and standing.told_of_purge == purges.told(cache)
    if cache.deleted_at is not None or right:
        return [], None
    standing.told_of_purge = purges.told(cache)
    status = purges.amend(cache, status_of(standing, ordered, now, _request(standing, memory, now), describe()), now)
    if status == cache.status:
        standing.told = None if ordered else (standing.revision, cache)
        return [], None
    changed = verdict(status) != verdict(cache.status)
    last = memory.written_at("Status", cache.namespace, cache.name)
    if not changed and last is not None and last + settings.status_interval > now:
        return [], last + settings.status_interval
    if not memory.is_new("Status", cache.namespace, cache.name, status, now):
        return [], None
    intents: list[Intent] = [
        Apply(IMAGE_CACHES, cache.namespace, cache.name, status_manifest(cache, status), subresource="status")
    ]
    event = event_for(cache, status)
    # The status that says so may not be visible yet, and its counts go on changing.
    if event is not None and memory.is_new("Event", cache.namespace, cache.name, event.reason, now):
        intents.append(event)
    purged = event_of(cache, status)
    if purged is not None and memory.is_new("PurgeEvent", cache.namespace, cache.name, purged.reason, now):
        intents.append(purged)
    return intents, None


def _request(standing: Standing, memory: PullerMemory, now: float) -> Request | None:
    """A refresh that is asked for: it begins once the status shows that it was heeded, so that none is repeated."""
    cache = standing.cache
    mark = asked(cache).mark
    if mark is None or cache.error:
        return None
    return Request(mark, memory.refreshes.begun_at(cache, mark, now))


def _follow_up(standing: Standing, memory: PullerMemory, now: float) -> Iterator[Intent]:
    """Remove an empty request that was heeded, and an ImageCache whose time after its end is over."""
    cache = standing.cache
    if cache.deleted_at is not None:
        return
    if asked(cache).is_removable and memory.is_new(
        "Refresh", cache.namespace, cache.name, (cache.uid, cache.status.requested_at), now
    ):
        yield RemoveAnnotation(IMAGE_CACHES, cache.namespace, cache.name, ANNOTATION_REFRESH, uid=cache.uid)
    deletion = deletion_at(cache, standing.course) if standing.course is not None else None
    over = deletion is not None and deletion <= now and asked(cache).mark is None
    if over and memory.is_new("Deletion", cache.namespace, cache.name, cache.uid, now):
        yield Delete(IMAGE_CACHES, cache.namespace, cache.name, cache.uid)


def _course_times(standings: Sequence[Standing], memory: PullerMemory, snapshot: ClusterSnapshot) -> Iterator[float]:
    """When a refresh begins that has something to do, and when time alone changes how a run stands."""
    now = snapshot.taken_at
    doubtful = bool(memory.doubts.nodes(snapshot))
    for standing in standings:
        cache, course = standing.cache, standing.course
        if course is None or cache.suspend or cache.deleted_at is not None:
            continue
        at = wake_at(cache, course, now, skipped=standing.counts[PairState.SKIPPED] > 0)
        if at is not None:
            yield at
        next_at = course.refresh.next_at
        if next_at is not None and (doubtful or cache.completion.once or standing.is_refreshed):
            yield next_at


def _wake_times(
    snapshot: ClusterSnapshot,
    standings: Sequence[Standing],
    admitted: Admitted,
    work: Work,
) -> Iterator[float]:
    now = snapshot.taken_at
    if admitted.look_again_at is not None:
        yield admitted.look_again_at
    for standing in standings:
        if standing.cache.suspend or (standing.course is not None and standing.course.rests):
            continue
        for pair in standing.open_pairs():
            if pair.state is PairState.FAILED and pair.due_at is not None and pair.due_at > now:
                yield pair.due_at
    for reading in work.readings:
        if not reading.settled:
            yield reading.pod.created_at + work.timeout_of(reading.pod) + GRACE_SECONDS + 1
