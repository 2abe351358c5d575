"""The filters that look at nothing but the node, in the scheduler's order."""

from prewarm.model.plans import RejectReason
from prewarm.model.pods import PodShape
from prewarm.placement import node_affinity, taints
from prewarm.placement.arrays import Mask
from prewarm.placement.cluster_arrays import ClusterArrays


def node_filters(shape: PodShape, cluster: ClusterArrays) -> list[tuple[RejectReason, Mask]]:
    """Each with the nodes that pass it; the first that a node fails is the reason. NodeAffinity may come first, too."""
    return [
        (RejectReason.NODE_AFFINITY, node_affinity.listed(shape, cluster)),
        (RejectReason.NODE_UNSCHEDULABLE, taints.schedulable(shape, cluster)),
        (RejectReason.NODE_NAME, node_affinity.named(shape, cluster)),
        (RejectReason.TAINT_TOLERATION, taints.tolerated(shape, cluster)),
        (RejectReason.NODE_AFFINITY, node_affinity.required(shape, cluster)),
    ]
