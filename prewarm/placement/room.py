"""Which nodes have room for a pod as they are?"""

from prewarm.model.pods import PodShape
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.cluster_arrays import ClusterArrays, Usage
from prewarm.placement.resources import ResourceFit


def with_room(shape: PodShape, snapshot: ClusterSnapshot, cluster: ClusterArrays) -> frozenset[str]:
    """Nodes where the resources that one more pod requests are free before anything leaves."""
    fits = ResourceFit(shape, cluster, Usage(snapshot, cluster, 1)).fits[0]
    return frozenset(name for name, fit in zip(cluster.names, fits.tolist(), strict=True) if fit)
