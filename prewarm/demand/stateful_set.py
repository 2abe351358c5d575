"""What will a StatefulSet's rollout need? Ordinals from the highest down, each after the one before it is ready."""

import re
from collections.abc import Sequence

from msgspec import Struct

from prewarm.demand.holds import hold
from prewarm.demand.progress import MAX_BATCHES
from prewarm.demand.revisions import is_current, own_pods
from prewarm.demand.shapes import MAX_AHEAD, far_ahead, images, start_seconds, stop_seconds
from prewarm.demand.stopping import expected_end
from prewarm.demand.volumes import PodVolumes
from prewarm.history import History
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import Pod
from prewarm.model.quantities import int_or_percent
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload

_ORDINAL = re.compile(r"-([0-9]{1,9})$", re.ASCII)


class Ordinals(Struct, frozen=True):
    """The pods of a StatefulSet, sorted by what becomes of them."""

    missing: tuple[int, ...]
    """Ordinals without a pod, the lowest first, which is the order in which they are created."""
    ending: tuple[Pod, ...]
    """Pods that are being deleted and come again, the first to end first."""
    outdated: tuple[Pod, ...]
    """Pods that the update has still to replace, the highest ordinal first."""
    starting: tuple[Pod, ...]
    """Pods of the wanted revision that are not ready yet."""


class PodSeconds(Struct, frozen=True):
    """How long one pod takes."""

    warm: float
    """From its creation until it is available, with the image there."""
    cold: float
    """The same with the pull."""
    to_stop: float
    """From being told to stop to its end."""


def ordinals(snapshot: ClusterSnapshot, workload: Workload) -> Ordinals:
    """Sort the pods of a StatefulSet; below the partition, nothing is replaced (stateful_set_control.go)."""
    held = hold(workload)
    below = workload.partition if held is None or not held.in_force else held.partition
    first = workload.first_ordinal
    wanted = _wanted(workload)
    partition = first + (below if workload.strategy is UpdateStrategy.ROLLING_UPDATE else 0)
    there: set[int] = set()
    ending: list[Pod] = []
    outdated: list[tuple[int, Pod]] = []
    starting: list[Pod] = []
    for pod in own_pods(snapshot, workload):
        number = ordinal(pod.name)
        if number is None or number not in wanted:
            continue
        there.add(number)
        if pod.deleted_at is not None:
            if number >= partition:
                ending.append(pod)
        elif is_current(workload, pod):
            if pod.ready_at is None:
                starting.append(pod)
        elif number >= partition:
            outdated.append((number, pod))
    return Ordinals(
        missing=tuple(number for number in wanted if number not in there),
        ending=tuple(sorted(ending, key=lambda pod: (pod.deleted_at or 0.0, pod.key))),
        outdated=tuple(pod for _, pod in sorted(outdated, key=lambda entry: -entry[0])),
        starting=tuple(starting),
    )


def _wanted(workload: Workload) -> Sequence[int]:
    """Ordinals that should have a pod: from the first on, reserved ones (of Advanced StatefulSets) passed over."""
    first, count = workload.first_ordinal, min(workload.replicas, MAX_AHEAD)
    if not workload.reserved_ordinals:
        return range(first, first + count)
    reserved = frozenset(workload.reserved_ordinals)
    return [number for number in range(first, first + count + len(reserved)) if number not in reserved][:count]


def ordinal(name: str) -> int | None:
    """Number at the end of a pod's name; None if there is none."""
    found = _ORDINAL.search(name)
    return int(found[1]) if found is not None else None


def stateful_set_demand(
    snapshot: ClusterSnapshot, workload: Workload, excluded: frozenset[str], history: History
) -> Demand | None:
    """The pods that a StatefulSet has still to create; None if there are none.

    With OnDelete they come when somebody deletes the old ones: nobody knows when. The same goes for a question, and for
    a rollout that the gate holds.

    Raises:
        ValueError: if maxUnavailable cannot be read.
    """
    needed = images(workload.template.shape, excluded)
    at = ordinals(snapshot, workload)
    if not needed or not (at.missing or at.ending or at.outdated):
        return None
    asked = workload.key in snapshot.asked
    rolling = bool(at.ending or at.outdated)
    held = hold(workload)
    by_hand = workload.strategy is UpdateStrategy.ON_DELETE or workload.paused
    waits = asked or (by_hand and not at.missing and not at.ending) or (held is not None and held.in_force)
    now = far_ahead(snapshot.taken_at) if waits else snapshot.taken_at
    leaving = (*at.ending, *at.outdated)
    warm = start_seconds(snapshot, history, workload)
    stopping = stop_seconds(snapshot, history, workload)
    takes = PodSeconds(warm, warm + sum(history.expected_pull_seconds(image) for image in needed), stopping)
    gone_at = max((expected_end(pod, snapshot.taken_at, stopping) for pod in at.ending), default=now)
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.WHAT_IF if asked else Trigger.ROLLOUT if rolling else Trigger.SCALE_OUT,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=_batches(at, workload, PodVolumes(snapshot, workload), now, gone_at, takes),
        leaving=tuple(pod.key for pod in leaving),
        leaves_in_order=True,
    )


def at_once(workload: Workload) -> int:
    """Pods that an update takes together: maxUnavailable, rounded down, at least 1.

    An Advanced StatefulSet heeds it only with podManagementPolicy Parallel.

    Raises:
        ValueError: if it is neither a number nor a percentage.
    """
    if workload.key.kind == "AdvancedStatefulSet" and not workload.parallel:
        return 1
    return max(1, int_or_percent(workload.max_unavailable, workload.replicas, round_up=False))


def _batches(
    at: Ordinals, workload: Workload, volumes: PodVolumes, now: float, gone_at: float, takes: PodSeconds
) -> tuple[Batch, ...]:
    """Missing pods first, then those that end already, then outdated ones, each after those before it are ready.

    `gone_at`: when the last of those that end is expected to be gone.
    """
    together = at_once(workload)
    batches: list[Batch] = []
    free_at = max((pod.created_at + takes.cold for pod in at.starting), default=now)
    free_at = max(now, free_at)
    if at.missing:
        size = len(at.missing) if workload.parallel else 1
        for start in range(0, len(at.missing), size):
            names = [f"{workload.key.name}-{number}" for number in at.missing[start : start + size]]
            batches += volumes.batches(free_at, names, 0)
            free_at += takes.cold if start == 0 else takes.warm
    if at.ending:
        ends = max(now, gone_at)
        batches += volumes.batches(ends, [pod.name for pod in at.ending], len(at.ending))
        free_at = max(free_at, ends + takes.cold)
    for group in _groups(at.outdated, together):
        batches += volumes.batches(free_at + takes.to_stop, [pod.name for pod in group], len(group))
        free_at += takes.to_stop + takes.warm
    return _merged(batches)


def _groups(pods: Sequence[Pod], size: int) -> list[Sequence[Pod]]:
    return [pods[start : start + size] for start in range(0, len(pods), size)]


def _merged(batches: list[Batch]) -> tuple[Batch, ...]:
    """At most MAX_BATCHES: what comes later is counted into the last one, but for pods with volumes of their own."""
    head, tail = batches[: MAX_BATCHES - 1], batches[MAX_BATCHES - 1 :]
    if not tail or any(batch.claims for batch in tail):
        return tuple(batches)
    names = tuple(name for batch in tail for name in batch.names)
    last = Batch(tail[0].needed_at, sum(b.pods for b in tail), sum(b.leaving for b in tail), names=names)
    return (*head, last)
