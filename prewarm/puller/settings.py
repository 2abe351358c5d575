"""What an operator may set about pulling."""

from msgspec import Struct

from prewarm.model.image_caches import PodRetention, PullerForm
from prewarm.model.images import PullPolicy

HELPER_DIRECTORY = "/prewarm"
"""Where the helper's static binary lies in every container of a puller pod."""


class PurgeSettings(Struct, frozen=True):
    """Removing images. It takes the runtime's socket, which is root on the node: off unless the operator wants it.

    None of it can be set by an ImageCache: a socket's path is a path on the node.
    """

    enabled: bool = False
    namespace: str = "prewarm-system"
    """Where the pods run that remove images: prewarm's own."""
    image: str = ""
    """Image of those pods: prewarm's own."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets in that namespace with which the kubelet pulls it."""
    priority_class: str = ""
    """PriorityClass of those pods; "" for the cluster's default."""
    socket: str = ""
    """Path of the container runtime's socket on every node; "" tries the usual ones of the node's runtime."""
    host_network: bool = False
    """Whether those pods use their node's network, where pods get no other."""
    nodes_at_once: int = 20
    """Nodes from which images are removed at once."""


class PullerSettings(Struct, frozen=True):
    """Budgets and the shape of puller pods; the defaults suit a cluster of which nothing is known."""

    cluster_pulls: int = 100
    """Puller pods at work at once in the whole cluster."""
    node_pulls: int = 1
    """Puller pods at work at once on a node; more only where kubelets pull in parallel (maxParallelImagePulls)."""
    registry_pulls: int = 100
    """Puller pods at work at once that pull from one registry."""
    silent_registry_pulls: int = 1
    """The same for a registry that did not answer lately: every attempt blocks a node's pulls for half a minute."""
    orders_at_once: int = 100
    """Pods ordered and not answered for at once: those that wait behind them may still be chosen otherwise."""
    busy_pulls: int = 50
    """With more puller pods at work than this, the records of finished ones, and so their deletion, wait some seconds:
    the API server's time goes to pulls first."""
    small_seconds: float = 2.0
    """Images whose pull takes no longer, by history, may share a puller pod."""
    images_per_pod: int = 5
    """Small images in one pod at most: more, and the kubelet's event limit (25 a pod) hides what happened."""
    helper_image: str = "docker.io/library/busybox:1.37.0-musl"
    """Brings the static binary that target containers run."""
    helper_command: tuple[str, ...] = ("cp", "/bin/busybox", f"{HELPER_DIRECTORY}/true")
    """Puts the binary into the shared directory; busybox tells by the file's name which applet it is to be."""
    hold_command: tuple[str, ...] = (f"{HELPER_DIRECTORY}/true",)
    """What a target container runs: it has to end at once with exit code 0."""
    mount_command: tuple[str, ...] = ("/bin/busybox", "true")
    """What a container of ours runs that mounts an image (form Volume): it has to end at once with exit code 0."""
    hold_limit: int = 1000
    """Finished pods at once that hold images against garbage collection: kube-controller-manager deletes finished pods,
    other people's too, beyond a number of its own (--terminated-pod-gc-threshold, 12,500)."""
    free_pod_slots: int = 3
    """Pod slots of a node that are left to pods that wait to be scheduled."""
    priority_class: str = ""
    """PriorityClass of puller pods; "" for the cluster's default."""
    service_account: str = ""
    """ServiceAccount of puller pods where the cache names none; "" for the namespace's `default`."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """Where the cache names none."""
    puller_form: PullerForm = PullerForm.CONTAINER
    """Where the cache names none."""
    attempt_timeout_seconds: int = 600
    """Seconds after which a pull counts as failed, where the cache says nothing."""
    refresh_seconds: float = 900.0
    """Seconds between two refreshes of a cache that says nothing; 0 for none. kube-fledged's default."""
    pod_retention: PodRetention = PodRetention.NEVER
    """Which finished puller pods are kept for a while, where the cache's annotation says nothing."""
    pod_retention_seconds: float = 600.0
    """How long those are kept."""
    pod_waiting_seconds: float = 600.0
    """How long a pod that waits for its images may keep pulls off its node."""
    purge: PurgeSettings = PurgeSettings()
    """How images are removed from nodes."""
    status_interval: float = 0.75
    """Seconds between two writes of one ImageCache's status that change nothing but counts."""
