"""Why an image is not on a node although it was asked for, as closed lists."""

from enum import StrEnum


class FailureReason(StrEnum):
    """Why an attempt at an image failed."""

    NOT_FOUND = "NotFound"
    UNAUTHORIZED = "Unauthorized"
    """Wrong, missing or no credentials: the kubelet's message does not tell them apart."""
    RATE_LIMITED = "RateLimited"
    REGISTRY_UNAVAILABLE = "RegistryUnavailable"
    REGISTRY_SILENT = "RegistrySilent"
    """The registry took the connection, or not even that, and never answered."""
    WRONG_PLATFORM = "WrongPlatform"
    QPS_EXCEEDED = "QpsExceeded"
    """The kubelet's own limit (registryPullQPS)."""
    NO_SPACE = "NoSpace"
    INVALID_IMAGE = "InvalidImage"
    HELPER_FAILED = "HelperFailed"
    """The container that brings our binary did not run; nothing is known about the image."""
    REJECTED = "Rejected"
    """The kubelet did not admit the pod, or ended it: OutOfcpu, OutOfpods, Evicted and the like."""
    DEADLINE = "Deadline"
    REFUSED = "Refused"
    """The API server did not take the pod: quota, pod security, an admission webhook."""
    UNKNOWN = "Unknown"


class WithheldReason(StrEnum):
    """Why a wanted pull is not under way now, beside the states of its node (model NodeState)."""

    NODE_NOT_FOUND = "NodeNotFound"
    SUSPENDED = "Suspended"
    BUDGET = "Budget"
    """As many pulls are under way as the cluster, the registry or the cache may have."""
    NODE_BUSY = "NodeBusy"
    """Another pull of ours is under way on the node."""
    POD_WAITING = "PodWaiting"
    """A pod on the node waits for its own images: kubelets pull first come, first served."""
    NO_ROOM = "NoRoom"
    """The node has no free pod slot, or no room for even a tiny pod."""
    REGISTRY_SILENT = "RegistrySilent"
    """The registry lately gave no answer, and other nodes try it first."""
    REFUSED = "Refused"
    """The API server refused another pod of this cache lately."""
