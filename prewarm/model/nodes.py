"""Nodes, what they hold, and why one does not take a pull now."""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256

from msgspec import Struct

from prewarm.model.pods import Resources, Taint, TaintEffect, Toleration
from prewarm.model.removals import RemovalResult


class NodeImageStatus(Struct, frozen=True, gc=False):
    """One entry of status.images; `names` hold digests first, then tags, as the kubelet lists them."""

    names: tuple[str, ...]
    size_bytes: int = 0


class Node(Struct, frozen=True):
    """A node as planning sees it; times are Unix seconds."""

    name: str
    uid: str = ""
    boot_id: str = ""
    labels: Mapping[str, str] = {}
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True
    ready_since: float = 0.0
    disk_pressure: bool = False
    disk_pressure_changed_at: float = 0.0
    """When that came or passed; 0 if the node does not say."""
    memory_pressure: bool = False
    pid_pressure: bool = False
    deleted_at: float | None = None
    created_at: float = 0.0
    allocatable: Resources = Resources()
    max_pods: int = 110
    images: tuple[NodeImageStatus, ...] = ()
    operating_system: str = "linux"
    architecture: str = "amd64"
    runtime_version: str = ""
    kubelet_version: str = ""
    resource_version: str = ""


class NodeState(StrEnum):
    """Why a node takes no pull now; the first that applies, in this order."""

    LEAVING = "Leaving"
    """The node is being deleted, marked for removal by an autoscaler, or shut down."""
    NOT_READY = "NotReady"
    """The node's Ready condition is not True."""
    CORDONED = "Cordoned"
    """spec.unschedulable is set."""
    DISK_PRESSURE = "DiskPressure"
    """The kubelet deletes images and refuses ordinary pods."""
    VIRTUAL = "Virtual"
    """A virtual kubelet: it keeps no images."""
    OPERATING_SYSTEM = "OperatingSystem"
    """The node does not run Linux."""
    TAINTED = "Tainted"
    """A NoExecute or control-plane taint that the puller pod does not tolerate."""


_LEAVING_TAINTS = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "DeletionCandidateOfClusterAutoscaler",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.cloudprovider.kubernetes.io/shutdown",
    }
)
_CONTROL_PLANE_TAINTS = frozenset({"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"})


def is_answering(node: Node) -> bool:
    """Whether its kubelet may be expected to go on with what it was given."""
    return node.ready and not _is_leaving(node)


def _is_leaving(node: Node) -> bool:
    return node.deleted_at is not None or any(taint.key in _LEAVING_TAINTS for taint in node.taints)


def pull_obstacle(node: Node, tolerations: tuple[Toleration, ...] = ()) -> NodeState | None:
    """Why nothing should be pulled on the node now; None if pulling is fine.

    NoSchedule taints do not count (the pods that come may tolerate them), except those of control-plane nodes;
    NoExecute taints would end the puller pod at once. `tolerations` lift such taints.
    """
    if _is_leaving(node):
        return NodeState.LEAVING
    if not node.ready:
        return NodeState.NOT_READY
    if node.unschedulable:
        return NodeState.CORDONED
    if node.disk_pressure:
        return NodeState.DISK_PRESSURE
    if node.labels.get("type") == "virtual-kubelet" or any(
        t.key.startswith("virtual-kubelet.io/") for t in node.taints
    ):
        return NodeState.VIRTUAL
    if node.operating_system != "linux":
        return NodeState.OPERATING_SYSTEM
    for taint in node.taints:
        hard = taint.effect is TaintEffect.NO_EXECUTE or taint.key in _CONTROL_PLANE_TAINTS
        if hard and not any(toleration.tolerates(taint) for toleration in tolerations):
            return NodeState.TAINTED
    return None


class Evidence(StrEnum):
    """How we know that an image is on a node."""

    OUR_PULL = "OurPull"
    """A puller pod's container got as far as needing the image."""
    NODE_STATUS = "NodeStatus"
    """The node lists it in status.images."""
    RUNNING_POD = "RunningPod"
    """A container of another pod started with it."""


class PresentImage(Struct, frozen=True, gc=False):
    """One image known to be on a node; `image` is the canonical spelling, times are Unix seconds."""

    image: str
    evidence: Evidence
    since: float
    digest: str = ""
    size_bytes: int = 0
    """As the node's status reported it: an image with a size was on that list once, and is gone if it left it."""
    cache: str = ""
    """namespace/name of the ImageCache for which we pulled it; "" if we did not."""
    pull_seconds: float | None = None
    pull_identity: str = ""
    """Under which credentials it was pulled (namespace, service account, secrets): see pull_identity()."""
    used_at: float | None = None
    """When a workload's container first used it after our pull."""
    held_until: float | None = None
    """Until when a finished pod of ours keeps it from garbage collection; None if none does."""
    stays: RemovalResult | None = None
    """Why it stayed when it was to be removed."""
    stays_in: str = ""
    """In which round of removals that was."""


class FailedPull(Struct, frozen=True):
    """Our attempts at one image that all failed so far; kept on the node's record so that a restart knows them."""

    image: str
    """Canonical spelling."""
    cache: str
    """namespace/name of the ImageCache that asked."""
    cache_uid: str
    reason: str
    message: str
    """The kubelet's or server's own words about the last attempt."""
    attempts: int
    at: float
    """End of the last attempt, Unix seconds."""
    pull_identity: str = ""


class NodeImages(Struct, frozen=True):
    """What prewarm knows of a node's images (the NodeImage object): void once uid or boot id differ from the node's."""

    node_name: str
    node_uid: str
    boot_id: str
    images: tuple[PresentImage, ...] = ()
    failures: tuple[FailedPull, ...] = ()
    resource_version: str = ""


MAX_IDENTITY = 512
"""Characters of a pull identity: it stands on every image of a record."""


def pull_identity(namespace: str, service_account: str, pull_secrets: tuple[str, ...]) -> str:
    """Under whose credentials an image is pulled, as the kubelet tells identities apart (KEP-2535).

    Many long names of secrets are told by their digest: cut off, an identity would not be known again.
    """
    if not pull_secrets and service_account in {"", "default"}:
        return ""
    owner, secrets = _account(namespace, service_account), "|".join(sorted(pull_secrets))
    if len(owner) + len(secrets) >= MAX_IDENTITY:
        secrets = f"sha256:{sha256(secrets.encode()).hexdigest()}"
    return f"{owner}|{secrets}" if secrets else owner


def may_become(identity: str, namespace: str, service_account: str, pull_secrets: tuple[str, ...]) -> bool:
    """Whether a pod that was created with these credentials may have ended up with that identity.

    A ServiceAccount's secrets are added to a pod that names none (plugin/pkg/admission/serviceaccount).
    """
    if identity == pull_identity(namespace, service_account, pull_secrets):
        return True
    return not pull_secrets and identity.startswith(f"{_account(namespace, service_account)}|")


def _account(namespace: str, service_account: str) -> str:
    return f"{namespace}|{service_account or 'default'}"
