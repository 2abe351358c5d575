"""What the emulated kubelets do to the API server, as values; times are those of the agenda, in seconds."""

from enum import StrEnum

from msgspec import Struct

from prewarm.model.nodes import NodeImageStatus
from prewarm.model.pods import ContainerStatus, PodPhase
from prewarm.simulation.messages import EventType


class ConditionType(StrEnum):
    """Pod conditions that the kubelet owns, in the order in which it writes them."""

    READY_TO_START = "PodReadyToStartContainers"
    INITIALIZED = "Initialized"
    READY = "Ready"
    CONTAINERS_READY = "ContainersReady"
    DISRUPTED = "DisruptionTarget"


class Condition(Struct, frozen=True):
    """status.conditions[]; `since` is lastTransitionTime."""

    type: ConditionType
    status: bool
    since: float
    reason: str = ""
    message: str = ""


class PodStatus(Struct, frozen=True):
    """The part of status that the kubelet writes."""

    phase: PodPhase
    started_at: float
    conditions: tuple[Condition, ...] = ()
    init_containers: tuple[ContainerStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()
    reason: str = ""
    message: str = ""
    host_ip: str = ""
    pod_ip: str = ""
    observed_generation: int = 0


class PodStatusChanged(Struct, frozen=True, tag=True, tag_field="output"):
    """Status to patch."""

    at: float
    namespace: str
    name: str
    uid: str
    node: str
    status: PodStatus


class PodFinallyDeleted(Struct, frozen=True, tag=True, tag_field="output"):
    """The kubelet is done with a pod that is being deleted: remove the object (grace period 0, this uid only)."""

    at: float
    namespace: str
    name: str
    uid: str
    node: str


class EventEmitted(Struct, frozen=True, tag=True, tag_field="output"):
    """An Event to create (count 1) or to patch (count grown)."""

    at: float
    event: str
    """metadata.name: the same for all occurrences."""
    namespace: str
    pod: str
    uid: str
    node: str
    type: EventType
    reason: str
    message: str
    field_path: str
    count: int
    first_at: float

    @property
    def created(self) -> bool:
        """Whether it is a new object."""
        return self.count == 1


class NodeImagesChanged(Struct, frozen=True, tag=True, tag_field="output"):
    """status.images of a node."""

    at: float
    node: str
    images: tuple[NodeImageStatus, ...]


class DiskPressureChanged(Struct, frozen=True, tag=True, tag_field="output"):
    """The DiskPressure condition of a node."""

    at: float
    node: str
    pressure: bool


class PullFinished(Struct, frozen=True, tag=True, tag_field="output"):
    """The kubelet's own account of one pull; `queued_at` to `started_at` it waited for other pulls."""

    at: float
    node: str
    namespace: str
    pod: str
    uid: str
    image: str
    queued_at: float
    started_at: float
    downloaded_bytes: int
    size_bytes: int
    error: str = ""


class ImageRemoved(Struct, frozen=True, tag=True, tag_field="output"):
    """An image that garbage collection or disk pressure deleted."""

    at: float
    node: str
    digest: str
    names: tuple[str, ...]


Output = (
    PodStatusChanged
    | PodFinallyDeleted
    | EventEmitted
    | NodeImagesChanged
    | DiskPressureChanged
    | PullFinished
    | ImageRemoved
)
