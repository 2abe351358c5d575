"""Pods that wait for a node already: the scheduler's queue has them before those to come."""

from collections.abc import Sequence

from prewarm.model.plans import Demand
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.incoming import IncomingPod, of_pod

MAX_COMPETITORS = 200
"""Waiting pods of other workloads that are placed first, at most: each costs as much as a pod of the demand."""


def competitors(demand: Demand, snapshot: ClusterSnapshot, ours: IncomingPod) -> Sequence[tuple[IncomingPod, int]]:
    """Kinds of waiting pods and how many, in the order of the scheduler's queue (priority, then age).

    Pods of the demand's own workload that exist and wait are among them: the demand is about those still to come.
    Those with scheduling gates are not: they are not in that queue.
    """
    leaving = set(demand.leaving)
    waiting = sorted(
        (
            pod
            for pod in snapshot.waiting_pods.values()
            if pod.shape.priority >= ours.shape.priority and pod.key not in leaving and not pod.shape.gated
        ),
        key=lambda pod: (-pod.shape.priority, pod.created_at, pod.key),
    )[:MAX_COMPETITORS]
    kinds: dict[tuple[str, int], list[Pod]] = {}
    for pod in waiting:
        owner = pod.owner.uid if pod.owner is not None else pod.uid
        kinds.setdefault((owner, id(pod.shape)), []).append(pod)
    return [(of_pod(pods[0], snapshot), len(pods)) for pods in kinds.values()]
