"""What does one pod of a workload need, and how long does it take to start and to stop?"""

from prewarm.demand.progress import STOPPING_SECONDS
from prewarm.demand.revisions import ROLLOUT_HASH_LABEL
from prewarm.history import History, time_to_ready, time_to_stop
from prewarm.model.images import PullPolicy
from prewarm.model.pods import Pod, PodShape
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload

TEMPLATE_HASH_LABELS = ("pod-template-hash", ROLLOUT_HASH_LABEL)
"""The labels by which a Deployment and an Argo Rollout tell their ReplicaSets' pods apart; the default spread
constraints count by them."""
MAX_AHEAD = 5_000
"""Pods to come that are planned at most; those beyond are planned once some of these exist. spec.replicas goes up to
2^31 - 1, whatever the cluster can hold, and each pod costs a step of the replay."""
_HOUR = 3600
_FAILING = frozenset({"CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError"})


def images(shape: PodShape, excluded: frozenset[str]) -> tuple[str, ...]:
    """Images of a pod in the kubelet's order, without those that only excluded containers use."""
    wanted = {container.image for container in shape.containers if container.name not in excluded}
    return tuple(image for image in shape.images if image in wanted)


def never_pulled(shape: PodShape) -> frozenset[str]:
    """Images of which every container says imagePullPolicy Never."""
    pulled = {c.image for c in shape.containers if c.pull_policy is not PullPolicy.NEVER}
    return frozenset(c.image for c in shape.containers) - pulled


def revision_labels(replica_set: Workload | None) -> tuple[tuple[str, str], ...]:
    """Labels that a ReplicaSet adds to the template's; empty until it exists."""
    if replica_set is None:
        return ()
    labels = {**replica_set.template.labels, **replica_set.labels}
    return tuple((label, labels[label]) for label in TEMPLATE_HASH_LABELS if labels.get(label))


def start_seconds(snapshot: ClusterSnapshot, history: History, workload: Workload) -> float:
    """Seconds from a pod's creation until it counts as available, waiting for room and pulling left out.

    From the workload's pods as they are, whatever their revision; else from history.
    """
    owners = (workload.uid, *(rs.uid for rs in snapshot.replica_sets_by_owner.get(workload.uid, {}).values()))
    pods = (pod for owner in owners for pod in snapshot.pods_by_owner.get(owner, {}).values())
    measured = time_to_ready(pods)
    return (history.time_to_ready(workload.key) if measured is None else measured) + workload.min_ready_seconds


def stop_seconds(
    snapshot: ClusterSnapshot, history: History, workload: Workload, default: float = STOPPING_SECONDS
) -> float:
    """Seconds from the moment at which a pod is told to stop until it is gone; `default` if never measured.

    From the workload's pods that went last, whatever their revision; else from history.
    """
    measured = time_to_stop(snapshot.stops.get(workload.key, ()), history.time_to_stop(workload.key))
    return default if measured is None else measured


def fails(pod: Pod) -> bool:
    """Whether a pod that is not ready shows more than that it takes its time."""
    return pod.ready_at is None and any(
        status.restart_count > 0 or status.reason in _FAILING for status in pod.containers
    )


def far_ahead(now: float) -> float:
    """A time for pods of which nobody knows when they come: one to two hours ahead, the same for a whole hour."""
    return float((now // _HOUR + 2) * _HOUR)
