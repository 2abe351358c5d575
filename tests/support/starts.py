"""A small cluster to judge container starts in: one Deployment `default/web`, nodes, puller pods, kubelet events."""

from dataclasses import dataclass, field

from prewarm.api.names import ANNOTATION_ENABLED, LABEL_PULLER
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage
from prewarm.model.outcomes import PlanInForce
from prewarm.model.pods import (
    ContainerPhase,
    ContainerShape,
    ContainerStatus,
    OwnerReference,
    Pod,
    PodPhase,
    PodShape,
    PodTemplate,
)
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import KubeletEvent, Workload, WorkloadKey

WEB = WorkloadKey("Deployment", "default", "web")
IMAGE = "registry.test/web:v2"
SIZE = 1_000_000_000
_REPLICA_SET = "rs-uid"


@dataclass
class Scene:
    """Objects by key; `snapshot` gives the cluster at a moment."""

    image: str = IMAGE
    node_names: tuple[str, ...] = ("node-a", "node-b")
    kubelet: str = "v1.36.3"
    covered: bool = True
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    records: dict[str, NodeImages] = field(default_factory=dict)

    def pod(self, name: str, node: str, *, created: float, started: float | None = None, image: str = "") -> Pod:
        """A pod of web with one container, running since `started`."""
        shape = PodShape(containers=(ContainerShape("app", image or self.image),))
        pod = Pod(
            "default",
            name,
            uid=f"uid-{name}",
            node_name=node,
            owner=OwnerReference("ReplicaSet", "web-1", _REPLICA_SET),
            shape=shape,
            phase=PodPhase.PENDING if started is None else PodPhase.RUNNING,
            created_at=created,
            scheduled_at=created,
            sandbox_ready_at=created,
            containers=(running("app", started),) if started is not None else (),
        )
        self.pods[pod.key] = pod
        return pod

    def puller(self, node: str, *, created: float, done: float | None = None, name: str = "") -> Pod:
        """A puller pod of ours for the image, finished at `done`."""
        shape = PodShape(
            containers=(ContainerShape("copy", "helper.test/helper:v1"), ContainerShape("pull-0", self.image))
        )
        helper = ContainerStatus(
            "copy", ContainerPhase.TERMINATED, started_at=created, finished_at=created, exit_code=0, init=True
        )
        target = ContainerStatus(
            "pull-0", ContainerPhase.TERMINATED, started_at=done, finished_at=done, exit_code=0, reason="Completed"
        )
        pod = Pod(
            "default",
            name or f"puller-{node}",
            uid=f"uid-puller-{node}-{name}",
            node_name=node,
            labels={LABEL_PULLER: "true"},
            owner=OwnerReference("ImageCache", "prewarm-web", "cache-uid"),
            shape=shape,
            phase=PodPhase.PENDING if done is None else PodPhase.SUCCEEDED,
            created_at=created,
            sandbox_ready_at=created,
            containers=(helper,) if done is None else (helper, target),
        )
        self.pods[pod.key] = pod
        return pod

    def record(self, node: str, *, since: float, image: str = "", used_at: float | None = None) -> None:
        """The node's record says that we pulled the image."""
        entry = PresentImage(
            canonical(image or self.image),
            Evidence.OUR_PULL,
            since,
            size_bytes=SIZE,
            cache="default/prewarm-web",
            pull_seconds=20.0,
            used_at=used_at,
        )
        known = self.records.get(node)
        self.records[node] = NodeImages(node, f"uid-{node}", "boot", (*(known.images if known else ()), entry))

    def snapshot(self, at: float) -> ClusterSnapshot:
        """The cluster at a moment."""
        owned = {key: pod for key, pod in self.pods.items() if pod.owner is not None and pod.owner.uid == _REPLICA_SET}
        template = PodTemplate(shape=PodShape(containers=(ContainerShape("app", self.image),)))
        annotations = {ANNOTATION_ENABLED: "true"} if self.covered else {}
        deployment = Workload(WEB, "web-uid", annotations=annotations, template=template)
        key = ("default", "web-1")
        replica_set = Workload(WorkloadKey("ReplicaSet", *key), _REPLICA_SET)
        return ClusterSnapshot(
            taken_at=at,
            nodes={n: Node(n, f"uid-{n}", "boot", kubelet_version=self.kubelet) for n in self.node_names},
            pods=dict(self.pods),
            pods_by_owner={_REPLICA_SET: owned},
            puller_pods={key: pod for key, pod in self.pods.items() if LABEL_PULLER in pod.labels},
            workloads={WEB: deployment},
            replica_sets={key: replica_set},
            replica_sets_by_owner={"web-uid": {key: replica_set}},
            node_images=dict(self.records),
        )


def running(name: str, started: float) -> ContainerStatus:
    """A container that runs since `started`."""
    return ContainerStatus(name, ContainerPhase.RUNNING, started_at=started, image_id="sha256:1")


def event(pod: Pod, reason: str, message: str, *, at: float, container: str = "app") -> KubeletEvent:
    """A kubelet's event about a container of a pod."""
    return KubeletEvent(
        f"{pod.uid}-{reason}-{at}-{container}",
        pod.namespace,
        pod.name,
        pod.uid,
        reason,
        message,
        pod.node_name,
        container,
        first_seen=at,
        last_seen=at,
    )


def present(pod: Pod, *, at: float, image: str = IMAGE, container: str = "app") -> KubeletEvent:
    """The image was there already."""
    text = f'Container image "{image}" already present on machine and can be accessed by the pod'
    return event(pod, "Pulled", text, at=at, container=container)


def pulling(pod: Pod, *, at: float, image: str = IMAGE, container: str = "app") -> KubeletEvent:
    """The kubelet began to pull."""
    return event(pod, "Pulling", f'Pulling image "{image}"', at=at, container=container)


def pulled(
    pod: Pod, took: str, waited: str, *, at: float, size: int = SIZE, image: str = IMAGE, container: str = "app"
) -> KubeletEvent:
    """The image was pulled; durations in Go's spelling."""
    text = f'Successfully pulled image "{image}" in {took} ({waited} including waiting). Image size: {size} bytes.'
    return event(pod, "Pulled", text, at=at, container=container)


def plan(
    *nodes: str, since: float, skipped: tuple[tuple[str, str], ...] = (), unpredictable: bool = False
) -> PlanInForce:
    """What was predicted for web."""
    return PlanInForce(WEB, "rev-2", (IMAGE,), nodes, skipped, unpredictable, since)
