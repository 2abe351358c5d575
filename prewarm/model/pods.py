"""Pods: the shape that scheduling depends on, and the state that accounting reads."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from prewarm.model.images import PullPolicy
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, integer


class ContainerKind(StrEnum):
    """Where in the pod an image is used."""

    INIT = "Init"
    SIDECAR = "Sidecar"
    MAIN = "Main"
    IMAGE_VOLUME = "ImageVolume"


class ContainerShape(Struct, frozen=True):
    """A container (or image volume) as far as images go; `image` is spelt as in the pod spec."""

    name: str
    image: str
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    kind: ContainerKind = ContainerKind.MAIN


class Resources(Struct, frozen=True):
    """Amounts of a pod or node: millicores, bytes, bytes, and extended resources by name in pieces."""

    milli_cpu: int = 0
    memory: int = 0
    ephemeral_storage: int = 0
    extended: tuple[tuple[str, int], ...] = ()


class TaintEffect(StrEnum):
    """Effects of a node taint."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Taint(Struct, frozen=True):
    """spec.taints[] of a node."""

    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


class Toleration(Struct, frozen=True):
    """spec.tolerations[] of a pod; empty key with Exists tolerates everything, empty effect every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Rule of v1.Toleration.ToleratesTaint (k8s.io/api/core/v1/toleration.go), numeric operators included."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        match self.operator:
            case "" | "Equal":
                return self.value == taint.value
            case "Exists":
                return True
            case "Gt" | "Lt":
                return self._compares(taint.value)
            case _:
                return False

    def _compares(self, value: str) -> bool:
        left, right = integer(value), integer(self.value)
        if left is None or right is None:
            return False
        return left > right if self.operator == "Gt" else left < right


class PreferredNodeTerm(Struct, frozen=True):
    """One preferredDuringScheduling term of node affinity, weight 1 to 100."""

    weight: int
    term: NodeSelectorTerm


class PodAffinityTerm(Struct, frozen=True):
    """One term of pod (anti-)affinity. `selector` None matches no pod; no namespaces named = the pod's own."""

    topology_key: str
    selector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    """Keys whose values in the pod's own labels narrow the selector; the API server merges them into created pods."""
    mismatch_label_keys: tuple[str, ...] = ()
    """As above, but pods with the same value do not count."""


class WeightedPodAffinityTerm(Struct, frozen=True):
    """A preferred term of pod (anti-)affinity, weight 1 to 100."""

    weight: int
    term: PodAffinityTerm


class Affinity(Struct, frozen=True):
    """spec.affinity. `required_node_terms` are ORed; None = no requirement."""

    required_node_terms: tuple[NodeSelectorTerm, ...] | None = None
    preferred_node_terms: tuple[PreferredNodeTerm, ...] = ()
    required_pod_affinity: tuple[PodAffinityTerm, ...] = ()
    preferred_pod_affinity: tuple[WeightedPodAffinityTerm, ...] = ()
    required_pod_anti_affinity: tuple[PodAffinityTerm, ...] = ()
    preferred_pod_anti_affinity: tuple[WeightedPodAffinityTerm, ...] = ()

    @property
    def concerns_pods(self) -> bool:
        """Whether any term is about other pods: such pods weigh on the placement of others too."""
        return bool(
            self.required_pod_affinity
            or self.preferred_pod_affinity
            or self.required_pod_anti_affinity
            or self.preferred_pod_anti_affinity
        )


class SpreadConstraint(Struct, frozen=True):
    """spec.topologySpreadConstraints[]; matchLabelKeys are already merged into the selector by the API server."""

    max_skew: int
    topology_key: str
    hard: bool
    selector: LabelSelector | None = None
    min_domains: int = 1
    match_label_keys: tuple[str, ...] = ()
    honor_node_affinity: bool = True
    honor_node_taints: bool = False


class HostPort(Struct, frozen=True):
    """A port that a container takes on its node."""

    port: int
    protocol: str = "TCP"
    host_ip: str = "0.0.0.0"  # noqa: S104 - Kubernetes' own spelling of "every address"


DEFAULT_SCHEDULER = "default-scheduler"


class PodShape(Struct, frozen=True):
    """Everything in a pod spec that decides on which nodes it may and should run, and which images it needs there.

    Equal shapes are one object in a snapshot: thousands of replicas share it.
    """

    containers: tuple[ContainerShape, ...] = ()
    requests: Resources = Resources()
    """What filters count: max(init phases, containers + sidecars) + overhead (scheduler's PodRequests)."""
    overhead: Resources = Resources()
    """What the RuntimeClass adds, part of `requests`; a template does not tell."""
    limits: Resources = Resources()
    """What quotas on limits count."""
    scoring_milli_cpu: int = 0
    """As `requests`, with 100m for a container that requests no CPU (schedutil.DefaultMilliCPURequest)."""
    scoring_memory: int = 0
    """As `requests`, with 200 MiB for a container that requests no memory (schedutil.DefaultMemoryRequest)."""
    node_selector: tuple[tuple[str, str], ...] = ()
    affinity: Affinity = Affinity()
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[SpreadConstraint, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    priority: int = 0
    """Of a pod; a template names its class only."""
    preempts: bool = True
    priority_class: str = ""
    scheduler_name: str = DEFAULT_SCHEDULER
    gated: bool = False
    """Whether spec.schedulingGates keep the scheduler from looking at it."""
    node_name: str = ""
    """spec.nodeName of a *template*; a running pod's node stands in Pod.node_name."""
    volume_claims: tuple[str, ...] = ()
    service_account: str = ""
    pull_secrets: tuple[str, ...] = ()
    host_network: bool = False
    runtime_class: str = ""

    @property
    def foreign_scheduler(self) -> bool:
        """Whether a scheduler places it of which nobody knows what it prefers: another program, or another profile."""
        return self.scheduler_name != DEFAULT_SCHEDULER

    @property
    def images(self) -> tuple[str, ...]:
        """Distinct images in the kubelet's order: image volumes, init containers, containers."""
        order = {ContainerKind.IMAGE_VOLUME: 0, ContainerKind.INIT: 1, ContainerKind.SIDECAR: 1, ContainerKind.MAIN: 2}
        ranked = sorted(self.containers, key=lambda container: order[container.kind])
        return tuple(dict.fromkeys(container.image for container in ranked))


class PodTemplate(Struct, frozen=True):
    """spec.template of a workload."""

    labels: Mapping[str, str] = {}
    shape: PodShape = PodShape()


class OwnerReference(Struct, frozen=True):
    """The controlling owner of an object."""

    kind: str
    name: str
    uid: str
    api_version: str = ""


class ContainerPhase(StrEnum):
    """Which of state.waiting, state.running and state.terminated is set."""

    WAITING = "Waiting"
    RUNNING = "Running"
    TERMINATED = "Terminated"


class ContainerStatus(Struct, frozen=True):
    """status.containerStatuses[] and initContainerStatuses[]; times are Unix seconds."""

    name: str
    phase: ContainerPhase = ContainerPhase.WAITING
    image: str = ""
    image_id: str = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    restart_count: int = 0
    ready: bool = False
    init: bool = False
    container_id: str = ""


class PodPhase(StrEnum):
    """status.phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class Pod(Struct, frozen=True):
    """A pod as planning and accounting see it; times are Unix seconds."""

    namespace: str
    name: str
    uid: str
    node_name: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    """Only those under prewarm.dev/."""
    owner: OwnerReference | None = None
    shape: PodShape = PodShape()
    phase: PodPhase = PodPhase.PENDING
    reason: str = ""
    message: str = ""
    created_at: float = 0.0
    deleted_at: float | None = None
    """metadata.deletionTimestamp: when its grace period ends, in which it has to stop."""
    stopping_since: float | None = None
    """When it was told to stop: deletionTimestamp less deletionGracePeriodSeconds."""
    scheduled_at: float | None = None
    started_at: float | None = None
    """status.startTime: when the kubelet first saw it."""
    unschedulable: bool = False
    """The scheduler tried, and found no node (condition PodScheduled)."""
    sandbox_ready_at: float | None = None
    """When PodReadyToStartContainers became true."""
    ready_at: float | None = None
    """When Ready became true; None while it is not."""
    containers: tuple[ContainerStatus, ...] = ()
    deletion_cost: int = 0
    """Annotation controller.kubernetes.io/pod-deletion-cost: the lower, the sooner a ReplicaSet deletes it."""
    resource_version: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)

    @property
    def finished(self) -> bool:
        """Whether it holds no resources any more."""
        return self.phase in {PodPhase.SUCCEEDED, PodPhase.FAILED}
