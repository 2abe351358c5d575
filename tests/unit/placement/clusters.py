"""Small clusters for placement tests: nodes and pods with only what a case is about."""

from collections.abc import Iterable, Mapping
from itertools import count

from prewarm.model.nodes import Node, NodeImageStatus
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import ContainerShape, OwnerReference, Pod, PodPhase, PodShape, PodTemplate, Resources, Taint
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage
from prewarm.model.volumes import Volume, VolumeClaim
from prewarm.model.workloads import Namespace, Service, Workload, WorkloadKey

HOSTNAME = "kubernetes.io/hostname"
MIB = 1024 * 1024
WEB = WorkloadKey("Deployment", "default", "web")
_NUMBERS = count(1)


def node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    cpu: int = 8000,
    memory: int = 32 * 1024 * MIB,
    extended: Mapping[str, int] | None = None,
    images: Mapping[str, int] | None = None,
    taints: tuple[Taint, ...] = (),
    unschedulable: bool = False,
    max_pods: int = 110,
) -> Node:
    return Node(
        name,
        labels={HOSTNAME: name} if labels is None else labels,
        taints=taints,
        unschedulable=unschedulable,
        allocatable=Resources(cpu, memory, 0, tuple(sorted((extended or {}).items()))),
        max_pods=max_pods,
        images=tuple(NodeImageStatus((image,), size) for image, size in (images or {}).items()),
    )


def pod(
    on: str = "",
    *,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    namespace: str = "default",
    shape: PodShape | None = None,
    owner: Workload | None = None,
    deleted_at: float | None = None,
    created_at: float = 0.0,
) -> Pod:
    name = name or f"pod-{next(_NUMBERS)}"
    return Pod(
        namespace,
        name,
        uid=name,
        node_name=on,
        labels=labels or {},
        shape=shape or PodShape(),
        owner=None if owner is None else OwnerReference(owner.key.kind, owner.key.name, owner.uid),
        phase=PodPhase.RUNNING if on else PodPhase.PENDING,
        deleted_at=deleted_at,
        created_at=created_at,
    )


def replica_set(name: str, labels: Mapping[str, str], *, template_hash: str = "") -> Workload:
    return Workload(
        WorkloadKey("ReplicaSet", "default", name),
        uid=f"uid-{name}",
        owner=OwnerReference("Deployment", "web", "uid-web"),
        template=PodTemplate(labels),
        template_hash=template_hash,
        selector=LabelSelector(tuple(sorted(labels.items()))),
    )


def cluster(
    nodes: Iterable[Node],
    pods: Iterable[Pod] = (),
    *,
    services: Iterable[Service] = (),
    namespaces: Iterable[Namespace] = (),
    replica_sets: Iterable[Workload] = (),
    volumes: Iterable[Volume] = (),
) -> ClusterSnapshot:
    """`volumes`: each is bound to the claim of its name in the namespace default."""
    by_node: dict[str, dict[tuple[str, str], Pod]] = {}
    by_namespace: dict[str, dict[tuple[str, str], Pod]] = {}
    by_owner: dict[str, dict[tuple[str, str], Pod]] = {}
    usage: dict[str, NodeUsage] = {}
    listed = list(pods)
    for one in listed:
        by_namespace.setdefault(one.namespace, {})[one.key] = one
        if one.owner is not None:
            by_owner.setdefault(one.owner.uid, {})[one.key] = one
        if one.node_name and not one.finished:
            by_node.setdefault(one.node_name, {})[one.key] = one
            usage[one.node_name] = usage.get(one.node_name, NodeUsage()).plus(one)
    sets = list(replica_sets)
    bound = list(volumes)
    by_namespace_services: dict[str, tuple[Service, ...]] = {}
    for service in services:
        by_namespace_services[service.namespace] = (*by_namespace_services.get(service.namespace, ()), service)
    return ClusterSnapshot(
        nodes={one.name: one for one in nodes},
        pods={one.key: one for one in listed},
        pods_by_node=by_node,
        pods_by_namespace=by_namespace,
        pods_by_owner=by_owner,
        waiting_pods={
            one.key: one for one in listed if not one.node_name and not one.finished and one.deleted_at is None
        },
        pods_with_affinity={
            one.key: one for one in listed if one.node_name and not one.finished and one.shape.affinity.concerns_pods
        },
        usage=usage,
        replica_sets={(one.key.namespace, one.key.name): one for one in sets},
        replica_sets_by_owner={"uid-web": {(one.key.namespace, one.key.name): one for one in sets}},
        services_by_namespace=by_namespace_services,
        namespaces={one.name: one for one in namespaces},
        volume_claims={("default", one.name): VolumeClaim("default", one.name, one.name) for one in bound},
        volumes={one.name: one for one in bound},
    )


def requests(cpu: int = 0, memory: int = 0, **extra: int) -> PodShape:
    """A shape with one container; what it does not request counts with the scheduler's defaults for scoring."""
    return PodShape(
        containers=(ContainerShape("main", "example.test/web:2"),),
        requests=Resources(cpu, memory, 0, tuple(sorted(extra.items()))),
        scoring_milli_cpu=cpu or 100,
        scoring_memory=memory or 200 * MIB,
    )


def demand(
    pods: int = 1,
    shape: PodShape | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    batches: tuple[Batch, ...] = (),
    leaving: Iterable[Pod] = (),
    leaving_first: int = 0,
) -> Demand:
    return Demand(
        WEB,
        "uid-web",
        Trigger.ROLLOUT,
        "r2",
        ("example.test/web:2",),
        PodTemplate(labels or {"app": "web"}, shape or requests(500, 512 * MIB)),
        batches or (Batch(0.0, pods),),
        leaving=tuple(one.key for one in leaving),
        leaving_first=leaving_first,
    )
