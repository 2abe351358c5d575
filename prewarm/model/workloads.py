"""Workloads and what stands around them: owners of pods, autoscalers, Services, namespaces."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from prewarm.model.batch import JobProgress, Schedule
from prewarm.model.pods import OwnerReference, PodTemplate
from prewarm.model.progressive import Flagger, InPlace, Rollout, UpdateOrder
from prewarm.model.selectors import LabelSelector


class WorkloadKey(Struct, frozen=True, order=True):
    """Kind, namespace and name; printed as kind/namespace/name in lower case."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.namespace}/{self.name}"


class UpdateStrategy(StrEnum):
    """spec.strategy.type / spec.updateStrategy.type."""

    ROLLING_UPDATE = "RollingUpdate"
    RECREATE = "Recreate"
    ON_DELETE = "OnDelete"


class Workload(Struct, frozen=True):
    """Anything with a pod template, and Flagger's Canary, which has none; times are Unix seconds."""

    key: WorkloadKey
    uid: str
    generation: int = 0
    observed_generation: int = 0
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    """Only those under prewarm.dev/ and deployment.kubernetes.io/."""
    owner: OwnerReference | None = None
    template: PodTemplate = PodTemplate()
    template_hash: str = ""
    """Hash of the raw template without the pod-template-hash label: equal templates have equal hashes."""
    selector: LabelSelector | None = None
    replicas: int = 1
    strategy: UpdateStrategy = UpdateStrategy.ROLLING_UPDATE
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"
    partition: int = 0
    first_ordinal: int = 0
    """Of a StatefulSet: spec.ordinals.start."""
    reserved_ordinals: tuple[int, ...] = ()
    """Of an Advanced StatefulSet: ordinals that get no pod."""
    parallel: bool = False
    """Of a StatefulSet: missing pods are created together (podManagementPolicy Parallel)."""
    claim_templates: tuple[str, ...] = ()
    """Of a StatefulSet: names of spec.volumeClaimTemplates; a pod's claim is called <template>-<pod>."""
    update_revision: str = ""
    """Of StatefulSets and OpenKruise's kinds: controller-revision-hash of pods of the wanted revision, by status."""
    min_ready_seconds: int = 0
    paused: bool = False
    created_at: float = 0.0
    deleted_at: float | None = None
    status_replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    replica_failure: str = ""
    """Message of the condition ReplicaFailure, in the API server's words: why pods of its were refused; "" if none."""
    resource_version: str = ""
    api_version: str = "apps/v1"
    in_place: InPlace = InPlace.NEVER
    update_order: UpdateOrder = UpdateOrder()
    rollout: Rollout | None = None
    """Of an Argo Rollout."""
    flagger: Flagger | None = None
    """Of a Flagger Canary."""
    schedule: Schedule | None = None
    """Of a CronJob; None if it cannot be read."""
    job: JobProgress | None = None
    """Of a Job."""


class Autoscaler(Struct, frozen=True):
    """A HorizontalPodAutoscaler."""

    namespace: str
    name: str
    uid: str
    target: WorkloadKey
    min_replicas: int = 1
    max_replicas: int = 1
    current_replicas: int = 0
    desired_replicas: int = 0
    utilization: float | None = None
    """Largest ratio of a current metric to its target; None if no metric says."""
    resource_version: str = ""


class Service(Struct, frozen=True):
    """A Service's selector: the scheduler's default spread constraints use it."""

    namespace: str
    name: str
    selector: tuple[tuple[str, str], ...] = ()


class Namespace(Struct, frozen=True):
    """A namespace's labels and prewarm.dev/ annotations."""

    name: str
    labels: Mapping[str, str] = {}
    terminating: bool = False


class KubeletEvent(Struct, frozen=True):
    """An Event of a kubelet about an image of a pod; times are Unix seconds."""

    uid: str
    namespace: str
    pod_name: str
    pod_uid: str
    reason: str
    message: str
    node_name: str = ""
    container: str = ""
    """From fieldPath; "" for image volumes."""
    first_seen: float = 0.0
    last_seen: float = 0.0
    count: int = 1
