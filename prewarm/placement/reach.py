"""Which nodes matter to a demand at all? A pool of 30 nodes among 1,000 should cost what 30 nodes cost.

Only where leaving the others out changes nothing: their columns would be infeasible for every pod that is placed, no
pod leaves them, and nothing that filters and scores count on them reaches the rest.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
from msgspec.structs import replace

from prewarm.model.plans import Demand, RejectReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Mask
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.competitors import competitors
from prewarm.placement.incoming import IncomingPod, of_demand
from prewarm.placement.meeting import admitted, looks_elsewhere
from prewarm.placement.node_filters import node_filters
from prewarm.placement.pod_affinity import PodAffinity
from prewarm.placement.sampling import nodes_to_find


def reachable(
    demand: Demand, snapshot: ClusterSnapshot, cluster: ClusterArrays, others: Collection[Demand] = ()
) -> ClusterArrays:
    """The nodes that replays of a demand, and of others beside it, need columns for; all if the rest has a say.

    They do if the scheduler would sample (the others are part of its order), if a term of pod affinity is in force
    (its domains span pools) or a spread constraint counts pods on nodes that the pod may not use.
    """
    pod = of_demand(demand, snapshot)
    # Whoever leaves is no rival, but plays of a part of the demand let fewer leave.
    rivals = competitors(replace(demand, leaving=()), snapshot, pod, cluster)
    placed = [pod, *(rival for rival, _ in rivals)]
    placed += [of_demand(other, snapshot) for other in others]
    mask: Mask = np.logical_or.reduce([admitted(one.shape, cluster) for one in placed])
    if not mask.any() or np.count_nonzero(mask) > nodes_to_find(cluster.count):
        return cluster
    for one in (demand, *others):
        for name in _standing(one, snapshot) & cluster.column.keys():
            mask[cluster.column[name]] = True
    if mask.all() or np.count_nonzero(mask) > nodes_to_find(cluster.count):
        return cluster
    if any(_looks_elsewhere(one, snapshot, cluster) for one in placed):
        return cluster
    return cluster.part(np.flatnonzero(mask))


def _standing(demand: Demand, snapshot: ClusterSnapshot) -> set[str]:
    """Nodes with pods of the workload: where they stand decides who leaves next."""
    owned = snapshot.replica_sets_by_owner.get(demand.workload_uid, {})
    pods = [pod for rs in owned.values() for pod in snapshot.pods_by_owner.get(rs.uid, {}).values()]
    pods += [snapshot.pods[key] for key in demand.leaving if key in snapshot.pods]
    return {pod.node_name for pod in pods if pod.node_name}


def _looks_elsewhere(pod: IncomingPod, snapshot: ClusterSnapshot, cluster: ClusterArrays) -> bool:
    if looks_elsewhere(pod.shape):
        return True
    return bool(snapshot.pods_with_affinity) and PodAffinity(pod, snapshot, cluster, 1).matters


def rejected_elsewhere(pod: IncomingPod, cluster: ClusterArrays) -> Mapping[RejectReason, int]:
    """Nodes without a column, by the first filter that rejects the pod there, in the scheduler's order."""
    whole = cluster.whole
    if cluster is whole:
        return {}
    left = np.ones(whole.count, dtype=np.bool_)
    left[cluster.columns] = False
    found: Counter[RejectReason] = Counter()
    for reason, passes in node_filters(pod.shape, whole):
        found[reason] += int(np.count_nonzero(left & ~passes))
        left &= passes
    return +found
