"""Pods that wait for a node already: the scheduler's queue has them before those to come."""

from collections.abc import Sequence

from prewarm.model.plans import Demand
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.incoming import IncomingPod, of_pod
from prewarm.placement.meeting import meets

MAX_COMPETITORS = 200
"""Waiting pods of other workloads that are placed first, at most: each costs as much as a pod of the demand."""
ALL_COMPETITORS = 1000
"""The same times the kinds of pods that wait: each may be a rollout of its own, whose plan counts on the others."""


def competitors(
    demand: Demand, snapshot: ClusterSnapshot, ours: IncomingPod, cluster: ClusterArrays
) -> Sequence[tuple[IncomingPod, int]]:
    """Kinds of waiting pods and how many, in the order of the scheduler's queue (priority, then age).

    Pods of the demand's own workload that exist and wait are among them: the demand is about those still to come.
    Those with scheduling gates are not: they are not in that queue. Nor are others that hardly come to nodes of `ours`.
    """
    leaving = set(demand.leaving)
    waiting = sorted(
        (
            pod
            for pod in snapshot.waiting_pods.values()
            if pod.shape.priority >= ours.shape.priority and pod.key not in leaving and not pod.shape.gated
        ),
        key=lambda pod: (-pod.shape.priority, pod.created_at, pod.key),
    )
    kinds: dict[tuple[str, int], list[Pod]] = {}
    for pod in waiting:
        kinds.setdefault(_kind(pod), []).append(pod)
    met = {kind for kind, pods in kinds.items() if meets(ours.shape, pods[0].shape, len(pods), cluster)}
    left = min(MAX_COMPETITORS, ALL_COMPETITORS // max(1, len(met)))
    counted: dict[tuple[str, int], int] = {}
    for kind in map(_kind, waiting):
        if kind in met and (left > 0 or kind[0] == ours.owner_uid):
            counted[kind] = counted.get(kind, 0) + 1
            left -= 1
    return [(of_pod(kinds[kind][0], snapshot), number) for kind, number in counted.items()]


def _kind(pod: Pod) -> tuple[str, int]:
    """By owner and what it asks for."""
    return (pod.owner.uid if pod.owner is not None else pod.uid, id(pod.shape))
