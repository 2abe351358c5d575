"""What will an update in place need? Pods keep their nodes, and the pull is time in which they do not serve."""

from collections.abc import Sequence

from prewarm.demand.daemon_set import replaced_at_once
from prewarm.demand.progress import MAX_BATCHES, bounds
from prewarm.demand.revisions import REVISION_LABEL, is_current, own_pods, same_revision
from prewarm.demand.shapes import far_ahead, images, start_seconds, stop_seconds
from prewarm.demand.stateful_set import at_once
from prewarm.demand.update_order import next_updates
from prewarm.history import History
from prewarm.model.plans import Batch, Demand, SkipReason, Trigger
from prewarm.model.pods import ContainerKind, Pod, PodShape
from prewarm.model.progressive import IN_PLACE_KINDS, InPlace, Revision
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload


def in_place_demand(
    snapshot: ClusterSnapshot, workload: Workload, excluded: frozenset[str], history: History
) -> Demand | None:
    """The pods that OpenKruise will change in place, on their nodes, in its order; None if there are none.

    Any number of pods counts, and so does an update in one go, both of which OpenKruise's own pre-download leaves out.

    Raises:
        ValueError: if maxUnavailable cannot be read.
    """
    if workload.in_place is InPlace.NEVER or workload.strategy is not UpdateStrategy.ROLLING_UPDATE:
        return None
    needed = images(workload.template.shape, excluded)
    pods = next_updates(snapshot, workload)
    if not needed or not pods or not all(updates_in_place(snapshot, workload, pod) for pod in pods):
        return None
    asked = workload.key in snapshot.asked
    now = far_ahead(snapshot.taken_at) if asked or workload.paused else snapshot.taken_at
    # Its containers are told to stop as if the pod were deleted, before they start again.
    warm = start_seconds(snapshot, history, workload) + stop_seconds(snapshot, history, workload, default=0.0)
    pull = sum(history.expected_pull_seconds(image) for image in needed)
    starting = sum(
        pod.ready_at is None and pod.deleted_at is None and is_current(workload, pod)
        for pod in own_pods(snapshot, workload)
    )
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.WHAT_IF if asked else Trigger.ROLLOUT,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=_batches(pods, _together(workload), starting, now, warm, pull),
    )


def updates_in_place(snapshot: ClusterSnapshot, workload: Workload, pod: Pod) -> bool:
    """Whether nothing but images of its containers changes for a pod.

    The two revisions tell. Where they are not known yet, what can be seen of the pod does: images of init containers
    and image volumes stay, no container comes.
    """
    if workload.in_place is InPlace.ONLY:
        return True
    old = _revision(snapshot, workload, pod.labels.get(REVISION_LABEL, ""))
    new = _wanted_revision(snapshot, workload)
    if old is not None and new is not None and old.rest_hash and new.rest_hash:
        return old.rest_hash == new.rest_hash
    return _only_images_differ(workload.template.shape, pod.shape)


def left_to_kruise(snapshot: ClusterSnapshot, workload: Workload) -> SkipReason | None:
    """Whether OpenKruise has ordered the images of the wanted revision itself, or has still to decide.

    Its label on the revision tells, which comes before its status speaks of the change (doReconcile of CloneSets).
    """
    if workload.key.kind not in IN_PLACE_KINDS or workload.key in snapshot.asked:
        return None
    if workload.observed_generation < workload.generation:
        return SkipReason.UNOBSERVED
    wanted = _wanted_revision(snapshot, workload)
    return SkipReason.PULLED_BY_KRUISE if wanted is not None and wanted.pre_downloaded else None


def _wanted_revision(snapshot: ClusterSnapshot, workload: Workload) -> Revision | None:
    if workload.observed_generation < workload.generation or workload.key in snapshot.asked:
        return None
    return _revision(snapshot, workload, workload.update_revision)


def _revision(snapshot: ClusterSnapshot, workload: Workload, name: str) -> Revision | None:
    if not name:
        return None
    revisions = snapshot.revisions_by_owner.get(workload.uid, {}).values()
    return next((found for found in revisions if same_revision(name, found.name)), None)


def _only_images_differ(template: PodShape, pod: PodShape) -> bool:
    there = {container.name: container for container in pod.containers}
    for container in template.containers:
        found = there.get(container.name)
        if found is None or found.kind is not container.kind:
            return False
        if container.kind is not ContainerKind.MAIN and found.image != container.image:
            return False
    return True


def _together(workload: Workload) -> int:
    match workload.key.kind:
        case "AdvancedStatefulSet":
            return at_once(workload)
        case "AdvancedDaemonSet":
            return replaced_at_once(workload)
        case _:
            return max(1, bounds(workload).unavailable)


def _batches(
    pods: Sequence[Pod], together: int, starting: int, now: float, warm: float, pull: float
) -> tuple[Batch, ...]:
    """Pods that are not ready cost no availability and go at once; ready ones as far as maxUnavailable allows."""
    idle = [pod for pod in pods if pod.ready_at is None]
    ready = [pod for pod in pods if pod.ready_at is not None]
    free = max(0, together - starting - len(idle))
    batches: list[Batch] = []
    at = now
    group, rest = [*idle, *ready[:free]], ready[free:]
    if group:
        batches.append(_batch(at, group))
    at += warm + pull
    # Since the pods before were cold, all later ones are late by one pull.
    while rest and len(batches) < MAX_BATCHES - 1:
        group, rest = rest[:together], rest[together:]
        batches.append(_batch(at, group))
        at += warm
    if rest:
        batches.append(_batch(at, rest))
    return tuple(batches)


def _batch(at: float, pods: Sequence[Pod]) -> Batch:
    nodes, names = tuple(pod.node_name for pod in pods), tuple(pod.name for pod in pods)
    return Batch(at, len(pods), nodes=nodes, names=names)
