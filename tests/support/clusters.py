"""Snapshots put together by hand: objects in, groupings and sums made as the snapshot store makes them."""

from collections.abc import Iterable, Mapping
from typing import Any

from prewarm.api.names import LABEL_PULLER
from prewarm.model.image_caches import ImageCache, Policy
from prewarm.model.nodes import Node, NodeImages
from prewarm.model.pods import ContainerShape, OwnerReference, Pod, PodShape, PodTemplate, Resources
from prewarm.model.progressive import ImagePolicy
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage
from prewarm.model.volumes import Volume, VolumeClaim
from prewarm.model.workloads import Autoscaler, Namespace, Workload, WorkloadKey

GIB = 1024**3
WEB = WorkloadKey("Deployment", "shop", "web")
ENABLED = {"prewarm.dev/enabled": "true"}


def node(name: str, *, cpu: int = 8, memory: int = 32, zone: str = "a", **fields: Any) -> Node:
    """A ready node with cores and GiB."""
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
    amounts = Resources(milli_cpu=cpu * 1000, memory=memory * GIB, ephemeral_storage=100 * GIB)
    return Node(name, uid=f"uid-{name}", boot_id=f"boot-{name}", labels=labels, allocatable=amounts, **fields)


def shape(*images: str, cpu: int = 500, memory: int = 1) -> PodShape:
    """A pod with one container per image, named c0, c1, ...; requests in millicores and GiB."""
    return PodShape(
        containers=tuple(ContainerShape(f"c{index}", image) for index, image in enumerate(images)),
        requests=Resources(milli_cpu=cpu, memory=memory * GIB),
        scoring_milli_cpu=cpu,
        scoring_memory=memory * GIB,
    )


def template(*images: str, name: str = "web", cpu: int = 500, memory: int = 1) -> PodTemplate:
    """A template labelled app=name."""
    return PodTemplate({"app": name}, shape(*images, cpu=cpu, memory=memory))


def deployment(pod_template: PodTemplate, *, replicas: int = 4, key: WorkloadKey = WEB, **fields: Any) -> Workload:
    """An opted-in Deployment whose template hash follows from its images."""
    values: dict[str, Any] = {"annotations": ENABLED, **fields}
    return Workload(
        key,
        f"uid-{key.name}",
        template=pod_template,
        template_hash=hash_of(pod_template),
        selector=LabelSelector(match_labels=tuple(pod_template.labels.items())),
        replicas=replicas,
        **values,
    )


def hash_of(pod_template: PodTemplate) -> str:
    """A stand-in for the template hash: equal for equal images."""
    return "-".join(image.rpartition(":")[2] for image in pod_template.shape.images)


def replica_set(owner: Workload, pod_template: PodTemplate, replicas: int, *, created_at: float = 0.0) -> Workload:
    """A ReplicaSet of a Deployment."""
    name = f"{owner.key.name}-{hash_of(pod_template)}"
    labels = {**pod_template.labels, "pod-template-hash": hash_of(pod_template)}
    return Workload(
        WorkloadKey("ReplicaSet", owner.key.namespace, name),
        f"uid-{name}",
        labels=labels,
        owner=OwnerReference("Deployment", owner.key.name, owner.uid),
        template=PodTemplate(labels, pod_template.shape),
        template_hash=hash_of(pod_template),
        selector=LabelSelector(match_labels=tuple(labels.items())),
        replicas=replicas,
        created_at=created_at,
    )


def cluster(
    nodes: Iterable[Node] = (),
    pods: Iterable[Pod] = (),
    workloads: Iterable[Workload] = (),
    replica_sets: Iterable[Workload] = (),
    *,
    now: float = 1000.0,
    policies: Iterable[Policy] = (),
    namespaces: Iterable[Namespace] = (),
    autoscalers: Iterable[Autoscaler] = (),
    node_images: Iterable[NodeImages] = (),
    image_caches: Iterable[ImageCache] = (),
    volumes: Iterable[tuple[VolumeClaim, Volume]] = (),
    image_policies: Iterable[ImagePolicy] = (),
) -> ClusterSnapshot:
    """A snapshot of these objects."""
    by_node: dict[str, dict[tuple[str, str], Pod]] = {}
    by_namespace: dict[str, dict[tuple[str, str], Pod]] = {}
    by_owner: dict[str, dict[tuple[str, str], Pod]] = {}
    usage: dict[str, NodeUsage] = {}
    all_pods = {pod.key: pod for pod in pods}
    bound = list(volumes)
    for pod in all_pods.values():
        by_namespace.setdefault(pod.namespace, {})[pod.key] = pod
        if pod.owner is not None:
            by_owner.setdefault(pod.owner.uid, {})[pod.key] = pod
        if pod.node_name and not pod.finished:
            by_node.setdefault(pod.node_name, {})[pod.key] = pod
            usage[pod.node_name] = usage.get(pod.node_name, NodeUsage()).plus(pod)
    found_workloads = {found.key: found for found in workloads}
    deployments: dict[str, dict[WorkloadKey, Workload]] = {}
    for key, found in found_workloads.items():
        if key.kind == "Deployment":
            deployments.setdefault(key.namespace, {})[key] = found
    sets: dict[tuple[str, str], Workload] = {}
    sets_by_owner: dict[str, dict[tuple[str, str], Workload]] = {}
    for found in replica_sets:
        name = (found.key.namespace, found.key.name)
        sets[name] = found
        if found.owner is not None:
            sets_by_owner.setdefault(found.owner.uid, {})[name] = found
    return ClusterSnapshot(
        taken_at=now,
        nodes=_by_name(nodes),
        volume_claims={(claim.namespace, claim.name): claim for claim, _ in bound},
        volumes={volume.name: volume for _, volume in bound},
        pods=all_pods,
        pods_by_node=by_node,
        pods_by_namespace=by_namespace,
        pods_by_owner=by_owner,
        puller_pods={key: pod for key, pod in all_pods.items() if LABEL_PULLER in pod.labels},
        waiting_pods={pod.key: pod for pod in all_pods.values() if _waits(pod)},
        usage=usage,
        workloads=found_workloads,
        deployments_by_namespace=deployments,
        replica_sets=sets,
        replica_sets_by_owner=sets_by_owner,
        autoscalers={found.target: found for found in autoscalers},
        namespaces={found.name: found for found in namespaces},
        image_caches={found.key: found for found in image_caches},
        node_images={found.node_name: found for found in node_images},
        policies={found.name: found for found in policies},
        image_policies={(found.namespace, found.name): found for found in image_policies},
    )


def _waits(pod: Pod) -> bool:
    return not pod.node_name and not pod.finished and pod.deleted_at is None


def _by_name(nodes: Iterable[Node]) -> Mapping[str, Node]:
    return {found.name: found for found in nodes}
