"""Do pods of two kinds ever stand in each other's way? Rollouts in pools of their own must not cost each other time."""

from collections.abc import Callable, Iterable

import numpy as np

from prewarm.model.pods import Pod, PodShape
from prewarm.placement import node_affinity
from prewarm.placement.arrays import Ints, Mask
from prewarm.placement.cluster_arrays import ClusterArrays


def _nowhere() -> Ints:
    return np.zeros(0, dtype=np.int64)


def meets(
    ours: PodShape,
    other: PodShape,
    pods: int,
    cluster: ClusterArrays,
    leaving: Callable[[], Ints] = _nowhere,
) -> bool:
    """Whether so many pods of another kind are to be counted on where ours come.

    They are not if no node admits both, or if less than one of them is expected on ours, were they spread evenly over
    all of theirs. Terms of pod affinity and spread constraints that count elsewhere reach beyond the nodes.

    Args:
        ours: what is placed.
        other: what may stand in its way.
        pods: how many of them.
        cluster: the nodes, or a part of them.
        leaving: gives the columns, in all of the cluster, of pods that make room for the others.
    """
    if other.affinity.concerns_pods or looks_elsewhere(ours):
        return True
    common, theirs = _nodes(ours, other, cluster.whole)
    if common:
        return pods * common >= theirs
    return bool(admitted(ours, cluster.whole)[leaving()].any())


def _nodes(ours: PodShape, other: PodShape, cluster: ClusterArrays) -> tuple[int, int]:
    """How many nodes admit both, and how many the other."""

    def count() -> tuple[int, int]:
        theirs = admitted(other, cluster)
        return int(np.count_nonzero(admitted(ours, cluster) & theirs)), int(np.count_nonzero(theirs))

    return cluster.known_counts((_choice(ours), _choice(other)), count)


def _choice(shape: PodShape) -> tuple[object, ...]:
    """What decides which nodes a pod admits."""
    return (shape.node_name, shape.node_selector, shape.affinity.required_node_terms)


def admitted(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes that the pod's own choice leaves. Taints and cordons do not count: such nodes are counted by spread."""
    if not shape.node_name:
        return node_affinity.required(shape, cluster)
    return node_affinity.named(shape, cluster) & node_affinity.required(shape, cluster)


def admitted_count(shape: PodShape, cluster: ClusterArrays) -> int:
    """How many these are."""
    return int(np.count_nonzero(admitted(shape, cluster)))


def looks_elsewhere(shape: PodShape) -> bool:
    """Whether pods on nodes that the pod may not use have a say in where it goes."""
    return shape.affinity.concerns_pods or not all(rule.honor_node_affinity for rule in shape.spread)


def columns_of(pods: Iterable[Pod], cluster: ClusterArrays) -> Ints:
    """The nodes on which pods stand, as columns in all of the cluster."""
    column = cluster.whole.column
    return np.array([column[pod.node_name] for pod in pods if pod.node_name in column], dtype=np.int64)
