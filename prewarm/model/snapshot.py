"""Everything that planning reads, at one moment, as immutable values."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from prewarm.model.image_caches import ImageCache, Policy
from prewarm.model.nodes import Node, NodeImages
from prewarm.model.pods import Pod
from prewarm.model.progressive import ImagePolicy, Revision
from prewarm.model.quotas import LimitRange, ResourceQuota
from prewarm.model.scheduling import DisruptionBudget, PriorityClass
from prewarm.model.volumes import AttachLimits, Volume, VolumeClaim
from prewarm.model.workloads import Autoscaler, Namespace, Service, Workload, WorkloadKey

ObjectKey = tuple[str, str]
"""Namespace and name."""


class NodeUsage(Struct, frozen=True):
    """What the pods bound to a node take: sums over pods that are not finished."""

    milli_cpu: int = 0
    memory: int = 0
    ephemeral_storage: int = 0
    scoring_milli_cpu: int = 0
    scoring_memory: int = 0
    pods: int = 0
    extended: tuple[tuple[str, int], ...] = ()

    def plus(self, pod: Pod, sign: int = 1) -> "NodeUsage":
        """The sums with a pod added (sign 1) or taken away (sign -1)."""
        shape = pod.shape
        extended = self.extended
        if shape.requests.extended:
            totals = dict(extended)
            for name, amount in shape.requests.extended:
                totals[name] = totals.get(name, 0) + sign * amount
            extended = tuple(sorted((name, amount) for name, amount in totals.items() if amount))
        return NodeUsage(
            self.milli_cpu + sign * shape.requests.milli_cpu,
            self.memory + sign * shape.requests.memory,
            self.ephemeral_storage + sign * shape.requests.ephemeral_storage,
            self.scoring_milli_cpu + sign * shape.scoring_milli_cpu,
            self.scoring_memory + sign * shape.scoring_memory,
            self.pods + sign,
            extended,
        )


class ClusterSnapshot(Struct, frozen=True):
    """The cluster at one moment. Mappings are never changed after the snapshot was taken.

    The groupings (by node, namespace, owner) hold the same Pod objects as `pods`. `usage` and `pods_by_node` leave out
    finished pods and pods without a node.
    """

    taken_at: float = 0.0
    """Unix seconds; all decisions on this snapshot use it as their clock."""
    nodes: Mapping[str, Node] = {}
    pods: Mapping[ObjectKey, Pod] = {}
    pods_by_node: Mapping[str, Mapping[ObjectKey, Pod]] = {}
    pods_by_namespace: Mapping[str, Mapping[ObjectKey, Pod]] = {}
    pods_by_owner: Mapping[str, Mapping[ObjectKey, Pod]] = {}
    """By uid of the controlling owner."""
    waiting_pods: Mapping[ObjectKey, Pod] = {}
    """Unfinished pods without a node, those being deleted left out."""
    pods_with_affinity: Mapping[ObjectKey, Pod] = {}
    """Bound, unfinished pods whose affinity concerns other pods."""
    puller_pods: Mapping[ObjectKey, Pod] = {}
    """Pods of ours (label prewarm.dev/puller); they are in the other mappings too."""
    usage: Mapping[str, NodeUsage] = {}
    stops: Mapping[WorkloadKey, tuple[float, ...]] = {}
    """Seconds that the last pods to go took from being told to stop to their deletion, by workload, the latest last."""
    workloads: Mapping[WorkloadKey, Workload] = {}
    """Deployments, StatefulSets, DaemonSets, CronJobs, Jobs of no CronJob, ReplicaSets that nothing controls, and the
    kinds of OpenKruise, Argo Rollouts and Flagger."""
    deployments_by_namespace: Mapping[str, Mapping[WorkloadKey, Workload]] = {}
    replica_sets: Mapping[ObjectKey, Workload] = {}
    replica_sets_by_owner: Mapping[str, Mapping[ObjectKey, Workload]] = {}
    """By uid of the owning Deployment or Rollout; the Jobs of a CronJob stand here under its uid, too."""
    revisions_by_owner: Mapping[str, Mapping[ObjectKey, Revision]] = {}
    """By uid of the owning workload of OpenKruise."""
    autoscalers: Mapping[WorkloadKey, Autoscaler] = {}
    """By target."""
    services_by_namespace: Mapping[str, tuple[Service, ...]] = {}
    namespaces: Mapping[str, Namespace] = {}
    quotas: Mapping[str, tuple[ResourceQuota, ...]] = {}
    """By namespace."""
    limit_ranges: Mapping[str, tuple[LimitRange, ...]] = {}
    """By namespace."""
    volume_claims: Mapping[ObjectKey, VolumeClaim] = {}
    volumes: Mapping[str, Volume] = {}
    attach_limits: Mapping[str, AttachLimits] = {}
    """By node name; nodes whose drivers name no limit may be missing."""
    priority_classes: Mapping[str, PriorityClass] = {}
    disruption_budgets: Mapping[ObjectKey, DisruptionBudget] = {}
    image_caches: Mapping[ObjectKey, ImageCache] = {}
    node_images: Mapping[str, NodeImages] = {}
    """By node name."""
    policies: Mapping[str, Policy] = {}
    image_policies: Mapping[ObjectKey, ImagePolicy] = {}
    """Of Flux."""
    asked: frozenset[WorkloadKey] = frozenset()
    """Workloads changed by a what-if question: they count as opted in, and their pods come when the asker decides."""

    def bound_volumes(self, namespace: str, claims: Iterable[str]) -> tuple[Volume, ...]:
        """The volumes to which claims are bound, by name; claims that are not bound, or not known, have none yet."""
        found = (self.volume_claims.get((namespace, name)) for name in claims)
        names = sorted({claim.volume_name for claim in found if claim is not None})
        return tuple(self.volumes[name] for name in names if name in self.volumes)
