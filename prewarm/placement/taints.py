"""NodeUnschedulable and TaintToleration (plugins/nodeunschedulable, plugins/tainttoleration)."""

import numpy as np

from prewarm.model.pods import PodShape, Taint, TaintEffect, Toleration
from prewarm.placement.arrays import Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays

_CORDON = Taint("node.kubernetes.io/unschedulable", "", TaintEffect.NO_SCHEDULE)


def _tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return any(toleration.tolerates(taint) for toleration in tolerations)


def schedulable(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes that are not cordoned, or whose cordon the pod tolerates."""
    if _tolerated(_CORDON, shape.tolerations):
        return np.ones(cluster.count, dtype=np.bool_)
    return ~cluster.cordoned


def tolerated(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes whose NoSchedule and NoExecute taints the pod tolerates."""
    kinds, index = cluster.taints
    passes = [
        all(t.effect is TaintEffect.PREFER_NO_SCHEDULE or _tolerated(t, shape.tolerations) for t in taints)
        for taints in kinds
    ]
    return np.array(passes, dtype=np.bool_)[index]


def unwelcome(shape: PodShape, cluster: ClusterArrays) -> Scores | None:
    """Number of PreferNoSchedule taints per node that the pod does not tolerate; None if there are none anywhere."""
    kinds, index = cluster.taints
    counts = [
        sum(t.effect is TaintEffect.PREFER_NO_SCHEDULE and not _tolerated(t, shape.tolerations) for t in taints)
        for taints in kinds
    ]
    return np.array(counts, dtype=np.float32)[index] if any(counts) else None
