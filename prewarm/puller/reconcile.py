"""From a snapshot to everything that is to be written so that ImageCaches come true."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from prewarm.history import History
from prewarm.model.intents import Create, Intent
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence import warmth
from prewarm.puller.admission import Admission, Admitted
from prewarm.puller.hold import Holds
from prewarm.puller.lifecycle import wake_at
from prewarm.puller.memory import PullerMemory
from prewarm.puller.notes import listen
from prewarm.puller.outcome import given_up_at
from prewarm.puller.pairs import Pairs, PairState
from prewarm.puller.pods import create
from prewarm.puller.purge import Purge
from prewarm.puller.purge_memory import RememberedCache
from prewarm.puller.purge_status import event_of_deleted
from prewarm.puller.quota import Headroom
from prewarm.puller.reasons import WithheldReason
from prewarm.puller.records import Records
from prewarm.puller.retention import Retention
from prewarm.puller.settings import PullerSettings
from prewarm.puller.standing import Standing
from prewarm.puller.telling import Telling
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
    *,
    first_pulls: int = 0,
) -> PullerDecision:
    """Decide on pods to create and delete, NodeImage records and ImageCache status to write, Events to record.

    Level-triggered: everything follows from the snapshot. `memory` only bridges the time until a write is visible; with
    a fresh one the same pods get the same names, so nothing is pulled twice.

    Args:
        snapshot: the cluster.
        settings: budgets and the shape of pods.
        history: estimates of pull times, which tell small images.
        memory: kept by the caller from one call to the next; tell it of refused and lost creates.
        first_pulls: places, in the cluster and among orders at once, that are left to ImageCaches without a pull under
            way: rollouts that are about to order one.
    """
    memory = memory if memory is not None else PullerMemory()
    snapshot = memory.limits.apply(memory.defaults.apply(snapshot, settings), history)
    memory.catch_up(snapshot)
    known = warmth(snapshot, memory.warmth)
    work = Work(snapshot, memory.orders, memory.failed_at, memory.hearsay, memory.readings)
    listen(memory.hearsay, memory.readings, work)
    headroom = Headroom(snapshot, memory.orders)
    courses = memory.courses(snapshot)
    pairs = Pairs(snapshot, known, work, memory.refusals, courses, memory.doubts)
    changed = memory.read_nodes(snapshot, known)
    restless = {*work.moved, *(refusal.order.node for refusal in memory.refusals)}
    standings = memory.standings(snapshot, pairs, changed, restless, courses)
    retention = Retention(work, settings, snapshot.taken_at)
    holds = Holds(snapshot, settings, known, work, memory)
    kept = retention.kept | holds.kept
    purge = Purge(snapshot, settings.purge, memory.purge, standings, work, kept)
    admission = Admission(
        snapshot,
        settings,
        history,
        known,
        work,
        pairs,
        pairs.refusals,
        headroom,
        memory.under_way,
        first_pulls,
        memory.resting,
    )
    admitted = admission.admit(standing for standing in standings if standing.cache.uid not in purge.resting)
    intents = list(_ordered(admitted, memory, work, headroom, settings))
    resting = frozenset(uid for uid, course in courses.items() if course.rests)
    due = memory.deferral.due(changed.observed, snapshot, work, settings)
    due |= purge.nodes | holds.changed(memory.held_nodes)
    waiting = (memory.deferral.waiting | changed.resting) - due
    records = Records(
        snapshot, known, work, resting, kept, waiting=waiting, held=holds.images, yielding=headroom.refused
    )
    intents.extend(records.writes(memory, due, purge))
    memory.held_nodes = frozenset(holds.images) | memory.held_nodes.intersection(records.unrecorded)
    intents.extend(records.deletions(memory))
    intents.extend(_purged(purge, records, memory, snapshot.taken_at))
    telling = Telling(snapshot, settings, memory, admitted, purge, headroom, admission.waiting_for_quota)
    intents.extend(telling.tell(standings))
    wake_times = [
        *_wake_times(snapshot, standings, admitted, work),
        *_course_times(standings, memory, snapshot),
        *memory.wake_times(),
        *retention.wake_times,
        *holds.wake_times,
        *telling.wake_times,
        *(at for at in (purge.wake_at, memory.deferral.wake_at) if at is not None),
    ]
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
        due_at = standing.next_due(now)
        if due_at is not None:
            yield due_at
    for reading in work.readings:
        if not reading.settled:
            yield given_up_at(reading.pod, work.timeout_of(reading.pod)) + 1
