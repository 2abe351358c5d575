"""Do pods of two kinds ever stand in each other's way? Rollouts in pools of their own must not cost each other time."""

from collections.abc import Iterable

from prewarm.model.pods import PodShape
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.placement import node_affinity
from prewarm.placement.arrays import Mask
from prewarm.placement.cluster_arrays import ClusterArrays


def meets(
    ours: PodShape,
    other: PodShape,
    pods: int,
    snapshot: ClusterSnapshot,
    cluster: ClusterArrays,
    leaving: Iterable[ObjectKey] = (),
) -> bool:
    """Whether so many pods of another kind are to be counted on where ours come.

    They are not if no node admits both, or if less than one of them is expected on ours, were they spread evenly over
    all of theirs. Terms of pod affinity and spread constraints that count elsewhere reach beyond the nodes.

    Args:
        ours: what is placed.
        other: what may stand in its way.
        pods: how many of them.
        snapshot: the cluster now.
        cluster: its nodes, or a part of them.
        leaving: pods that make room for the others.
    """
    if other.affinity.concerns_pods or looks_elsewhere(ours):
        return True
    common, theirs = _nodes(ours, other, cluster.whole)
    if common:
        return pods * common >= theirs
    mine = admitted(ours, cluster.whole)
    return any(_stands_on(key, mine, snapshot, cluster.whole) for key in leaving)


def _nodes(ours: PodShape, other: PodShape, cluster: ClusterArrays) -> tuple[int, int]:
    """How many nodes admit both, and how many the other."""

    def count() -> tuple[int, int]:
        theirs = admitted(other, cluster)
        return int((admitted(ours, cluster) & theirs).sum()), int(theirs.sum())

    return cluster.known_counts((_choice(ours), _choice(other)), count)


def _choice(shape: PodShape) -> tuple[object, ...]:
    """What decides which nodes a pod admits."""
    return (shape.node_name, shape.node_selector, shape.affinity.required_node_terms)


def admitted(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes that the pod's own choice leaves. Taints and cordons do not count: such nodes are counted by spread."""
    if not shape.node_name:
        return node_affinity.required(shape, cluster)
    return node_affinity.named(shape, cluster) & node_affinity.required(shape, cluster)


def looks_elsewhere(shape: PodShape) -> bool:
    """Whether pods on nodes that the pod may not use have a say in where it goes."""
    return shape.affinity.concerns_pods or not all(rule.honor_node_affinity for rule in shape.spread)


def _stands_on(key: ObjectKey, nodes: Mask, snapshot: ClusterSnapshot, cluster: ClusterArrays) -> bool:
    pod = snapshot.pods.get(key)
    column = cluster.column.get(pod.node_name) if pod is not None else None
    return column is not None and bool(nodes[column])
