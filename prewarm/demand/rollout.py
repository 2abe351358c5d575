"""What will a Deployment's rollout need? From the state of its ReplicaSets and pods alone, at every stage."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low

from msgspec import Struct
from msgspec.structs import replace

from prewarm.api.plan_annotation import decode_summary
from prewarm.demand.departures import departure_order
from prewarm.demand.progress import (
    Counts,
    Times,
    bounds,
    departing_now,
    is_recreate,
    recreate_batches,
    rolling_batches,
    spread,
)
from prewarm.demand.shapes import MAX_AHEAD, far_ahead, images, revision_labels, start_seconds, stop_seconds
from prewarm.demand.stopping import expected_end
from prewarm.history import History
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import Workload

TERMINATION_SECONDS = 10.0
"""Assumed time until pods that were not even asked to stop have ended, where that is awaited (Recreate), and none of
their workload was measured."""
SHORTEST_WAIT = 2.0
"""Seconds for which an overdue pod is expected to take longer, at least."""
ROOM_SECONDS = 5.0
"""A pod that was bound so long after its creation waited for room: a scheduler that has much to do is quicker."""

_NONE: Mapping[ObjectKey, Pod] = {}


class Stage(Struct, frozen=True):
    """A Deployment's ReplicaSets and pods, sorted by what becomes of them. Finished pods are left out."""

    workload: Workload
    current: Workload | None
    """The ReplicaSet whose template equals the Deployment's (FindNewReplicaSet); None until it is created."""
    old: tuple[Workload, ...]
    """The other ReplicaSets, oldest first."""
    new_pods: tuple[Pod, ...]
    old_pods: Mapping[str, tuple[Pod, ...]]
    """By ReplicaSet uid, without terminating ones."""
    terminating: tuple[Pod, ...]
    """Old pods that are being deleted, the first to end first."""

    @property
    def rolling(self) -> bool:
        """Whether pods of another revision are still there or the revision was not started."""
        return self.current is None or any(rs.replicas for rs in self.old) or any(self.old_pods.values())

    @property
    def missing(self) -> int:
        """Pods of the current revision that do not exist yet."""
        return max(0, self.workload.replicas - len(self.new_pods))


def stage(snapshot: ClusterSnapshot, workload: Workload) -> Stage:
    """Sort the ReplicaSets and pods of a Deployment; of replicas beyond those that exist, MAX_AHEAD count."""
    sets = _oldest_first(snapshot, workload)
    return stage_of(snapshot, workload, next((rs for rs in sets if rs.template_hash == workload.template_hash), None))


def stage_of(snapshot: ClusterSnapshot, workload: Workload, current: Workload | None) -> Stage:
    """Sort the ReplicaSets and pods of a workload of which the current ReplicaSet is known."""
    sets = _oldest_first(snapshot, workload)
    new_pods: tuple[Pod, ...] = ()
    old_pods: dict[str, tuple[Pod, ...]] = {}
    terminating: list[Pod] = []
    for replica_set in sets:
        pods = [pod for pod in snapshot.pods_by_owner.get(replica_set.uid, _NONE).values() if not pod.finished]
        staying = tuple(sorted((pod for pod in pods if pod.deleted_at is None), key=lambda pod: pod.key))
        if replica_set is current:
            new_pods = staying
        else:
            old_pods[replica_set.uid] = staying
            terminating += (pod for pod in pods if pod.deleted_at is not None)
    terminating.sort(key=lambda pod: (pod.deleted_at or 0.0, pod.key))
    old = tuple(rs for rs in sets if rs is not current)
    most = len(new_pods) + sum(map(len, old_pods.values())) + MAX_AHEAD
    if workload.replicas > most:
        workload = replace(workload, replicas=most)
    return Stage(workload, current, old, new_pods, old_pods, tuple(terminating))


def _oldest_first(snapshot: ClusterSnapshot, workload: Workload) -> list[Workload]:
    owned = snapshot.replica_sets_by_owner.get(workload.uid, {}).values()
    return sorted(owned, key=lambda rs: (rs.created_at, rs.key.name))


def rollout_demand(snapshot: ClusterSnapshot, at: Stage, excluded: frozenset[str], history: History) -> Demand | None:
    """The pods that a rollout still has to create; None if no rollout is under way.

    A rollout lasts until the pods of all other revisions are gone; after that, what was planned stays until the last
    new pods are ready, with no pod to come: it is not withdrawn under them. A paused Deployment with a changed template
    is an announcement: all its pods come, nobody knows when; so is a question what would be if.

    Raises:
        ValueError: if maxSurge or maxUnavailable cannot be read.
    """
    workload = at.workload
    asked = workload.key in snapshot.asked
    limits = bounds(workload)
    needed = images(workload.template.shape, excluded)
    if not needed or workload.replicas == 0 or not (at.rolling or last_pods_start(snapshot, at)):
        return None
    announced = asked or workload.paused
    now = far_ahead(snapshot.taken_at) if announced else snapshot.taken_at
    warm_start = start_seconds(snapshot, history, workload)
    pulling = sum(history.expected_pull_seconds(image) for image in needed)
    cold_start = warm_start if announced else warm_start + pulling
    counts = counts_of(at, snapshot.taken_at)
    going = [pod for pods in at.old_pods.values() for pod in pods][counts.old :]
    stopping = stop_seconds(snapshot, history, workload)
    ends = tuple(max(now, expected_end(pod, snapshot.taken_at, stopping)) for pod in at.terminating)
    if is_recreate(workload):
        together = counts.old
        untold = now + stop_seconds(snapshot, history, workload, TERMINATION_SECONDS)
        batches = recreate_batches(counts, _old_gone_at(at, now, ends, untold), len(at.terminating) + len(going))
    else:
        together = departing_now(counts, limits)
        ends = (*ends, *(now + stopping for _ in going))
        available = available_at(at, snapshot.taken_at, warm_start, cold_start, ends)
        times = Times(available, ends, warm_start, cold_start, stopping, _waiting(at))
        batches = rolling_batches(counts, limits, now, times)
    # Ages are compared when old pods go: for most that is when the first new one becomes available.
    leaving = leaving_pods(at, batches[0].needed_at if batches else snapshot.taken_at, len(going) + together)
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.WHAT_IF if asked else Trigger.ROLLOUT,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=batches,
        leaving=tuple(pod.key for pod in leaving),
        leaving_first=batches[0].leaving if batches else 0,
        revision_labels=revision_labels(at.current),
    )


def counts_of(at: Stage, now: float) -> Counts:
    """What the Deployment controller goes by; pods that a ReplicaSet is about to delete count as gone."""
    old = sum(min(rs.replicas, len(at.old_pods[rs.uid])) for rs in at.old)
    old_available = sum(_available(pod, at.workload, now) for pods in at.old_pods.values() for pod in pods)
    new_available = sum(_available(pod, at.workload, now) for pod in at.new_pods)
    return Counts(at.workload.replicas, len(at.new_pods), new_available, old, min(old, old_available))


def available_at(
    at: Stage, now: float, warm_start: float, cold_start: float, ends: Iterable[float] = ()
) -> tuple[float, ...]:
    """When each new pod that is not available yet will be.

    One that became ready waits for minReadySeconds, one whose containers run for its readiness, others for their
    images too. One for which no node has room takes that of the next pod that `ends`, its image is pulled meanwhile. An
    overdue one takes another tenth of the time that it took so far.
    """
    rooms = iter(sorted(ends))
    pods = [pod for pod in at.new_pods if not _available(pod, at.workload, now)]
    expected = []
    for index, pod in enumerate(sorted(pods, key=lambda pod: (pod.created_at, pod.key))):
        starts = [status.started_at for status in pod.containers if not status.init and status.started_at is not None]
        if pod.ready_at is not None:
            due = pod.ready_at + at.workload.min_ready_seconds
        elif starts:
            due = max(starts) + warm_start
        else:
            due = pod.created_at + spread(cold_start, index, len(pods))
            if pod.unschedulable:
                due = max(due, next(rooms, now) + warm_start)
        overdue = now + max(SHORTEST_WAIT, 0.1 * (now - pod.created_at))
        expected.append(due if due > now else overdue)
    return tuple(expected)


def leaving_pods(at: Stage, now: float, together: int) -> tuple[Pod, ...]:
    """Old pods in the order in which they go: ending ones, then unhealthy ones, then the oldest ReplicaSet's."""
    unhealthy: list[Pod] = []
    healthy: list[Pod] = []
    active = [pod for pods in at.old_pods.values() for pod in pods]
    for replica_set in at.old:
        own = at.old_pods[replica_set.uid]
        staying = [*at.new_pods, *(pod for pod in active if pod.owner is None or pod.owner.uid != replica_set.uid)]
        first = min(len(own), max(0, together - len(unhealthy) - len(healthy)))
        for pod in departure_order(own, staying, first, now):
            (healthy if pod.ready_at is not None else unhealthy).append(pod)
    return (*at.terminating, *unhealthy, *healthy)


def last_pods_start(snapshot: ClusterSnapshot, at: Stage) -> bool:
    """Whether a cache that was planned for this rollout is still there while some of its pods are not ready.

    Also while some have no node yet.
    """
    if _last_pods_land(snapshot, at):
        return True
    if at.missing == 0 and all(pod.ready_at is not None for pod in at.new_pods):
        return False
    name = str(at.workload.key)
    planned = (
        decode_summary(cache.plan_annotation)
        for cache in snapshot.image_caches.values()
        if cache.planned and cache.workload == name
    )
    return any(
        summary is not None
        and summary.trigger == Trigger.ROLLOUT
        and summary.revision != ""
        # The annotation keeps only the head of a long hash.
        and at.workload.template_hash.startswith(summary.revision)
        for summary in planned
    )


def _last_pods_land(snapshot: ClusterSnapshot, at: Stage) -> bool:
    """Whether pods look for a node while old ones end: where they are steered, the labels are to be there.

    No longer than old pods are given to end, lest one that is stuck on a dead node keep the rollout open.
    """
    ending = any((pod.deleted_at or 0.0) > snapshot.taken_at for pod in at.terminating)
    return ending and any(not pod.node_name and not pod.shape.gated for pod in at.new_pods)


def _available(pod: Pod, workload: Workload, now: float) -> bool:
    """Ready for minReadySeconds (podutil.IsPodAvailable)."""
    return pod.ready_at is not None and now - pod.ready_at >= workload.min_ready_seconds


def _waiting(at: Stage) -> int | None:
    """New pods for which no node has room (Times.waiting); 0 where most of them had to wait for theirs.

    Old pods do not tell: theirs may have waited for a node that was starting then.
    """
    stuck = sum(pod.unschedulable for pod in at.new_pods)
    waits = [pod.scheduled_at - pod.created_at for pod in at.new_pods if pod.scheduled_at is not None]
    return stuck if stuck or (waits and median_low(waits) >= ROOM_SECONDS) else None


def _old_gone_at(at: Stage, now: float, ends: Sequence[float], untold: float) -> float:
    """When the last old pod has ended: of those told to stop `ends` say it, of the others `untold`."""
    return max(now, untold if any(at.old_pods.values()) else now, *ends)
