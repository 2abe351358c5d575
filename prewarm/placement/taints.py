"""NodeUnschedulable and TaintToleration (plugins/nodeunschedulable, plugins/tainttoleration)."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from prewarm.model.pods import PodShape, Taint, TaintEffect, Toleration
from prewarm.placement.arrays import Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays

Verdict = TypeVar("Verdict")
_CORDON = Taint("node.kubernetes.io/unschedulable", "", TaintEffect.NO_SCHEDULE)


def _tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return any(toleration.tolerates(taint) for toleration in tolerations)


def schedulable(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes that are not cordoned, or whose cordon the pod tolerates."""
    if _tolerated(_CORDON, shape.tolerations):
        return np.ones(cluster.count, dtype=np.bool_)
    return cluster.mask(lambda node: not node.unschedulable)


def _by_taints(cluster: ClusterArrays, judge: Callable[[tuple[Taint, ...]], Verdict]) -> list[Verdict]:
    """A judgement per node; nodes of a pool share their taints, so each set is judged once."""
    verdicts: dict[tuple[Taint, ...], Verdict] = {(): judge(())}
    result = []
    for node in cluster.nodes:
        if node.taints not in verdicts:
            verdicts[node.taints] = judge(node.taints)
        result.append(verdicts[node.taints])
    return result


def tolerated(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes whose NoSchedule and NoExecute taints the pod tolerates."""

    def passes(taints: tuple[Taint, ...]) -> bool:
        return all(t.effect is TaintEffect.PREFER_NO_SCHEDULE or _tolerated(t, shape.tolerations) for t in taints)

    return np.array(_by_taints(cluster, passes), dtype=np.bool_)


def unwelcome(shape: PodShape, cluster: ClusterArrays) -> Scores | None:
    """Number of PreferNoSchedule taints per node that the pod does not tolerate; None if there are none anywhere."""

    def count(taints: tuple[Taint, ...]) -> int:
        soft = (taint for taint in taints if taint.effect is TaintEffect.PREFER_NO_SCHEDULE)
        return sum(not _tolerated(taint, shape.tolerations) for taint in soft)

    counts = np.array(_by_taints(cluster, count), dtype=np.float32)
    return counts if counts.any() else None
