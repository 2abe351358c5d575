"""What the emulated kubelet is told: pods, pull secrets and nodes."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct

from prewarm.model.images import PullPolicy
from prewarm.model.pods import Affinity, Resources, Taint, Toleration
from prewarm.model.removals import Removal
from prewarm.simulation.messages import Runtime


class RestartPolicy(StrEnum):
    """spec.restartPolicy."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class ContainerSpec(Struct, frozen=True):
    """A container and what its process does once it is started; times in seconds."""

    name: str
    image: str
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    mounts: tuple[str, ...] = ()
    """Names of the image volumes that it mounts."""
    sidecar: bool = False
    """An init container with restartPolicy Always."""
    command: str = ""
    brings_program: bool = False
    """The command lies in a volume that it mounts."""
    start_error: bool = False
    """The command does not exist in the image."""
    run_seconds: float | None = None
    """When the process ends by itself; None: it runs until it is stopped."""
    exit_code: int = 0
    startup_seconds: float = 0.0
    """From start to passing its readiness probe."""
    stop_seconds: float | None = 0.5
    """From SIGTERM to its end; None: it ignores SIGTERM and is killed after the grace period."""
    must_be_non_root: bool = False
    """runAsNonRoot is set and runAsUser is not, so the image's USER decides."""
    removals: tuple[Removal, ...] = ()
    """Images that its process, `prewarm remove-images`, has the runtime remove when it ends."""


class ImageVolume(Struct, frozen=True):
    """spec.volumes[].image."""

    name: str
    reference: str
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT


class PodSpec(Struct, frozen=True):
    """A pod bound to a node, as far as its kubelet cares about images."""

    namespace: str
    name: str
    uid: str
    node_name: str
    containers: tuple[ContainerSpec, ...]
    init_containers: tuple[ContainerSpec, ...] = ()
    image_volumes: tuple[ImageVolume, ...] = ()
    has_volumes: bool = False
    """Any volume at all: mounting takes the kubelet one round of its attach loop."""
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    pull_secrets: tuple[str, ...] = ()
    service_account: str = "default"
    grace_seconds: float = 30.0
    active_deadline_seconds: float | None = None
    requests: Resources = Resources()
    node_selector: tuple[tuple[str, str], ...] = ()
    affinity: Affinity = Affinity()
    tolerations: tuple[Toleration, ...] = ()
    priority: int = 0
    best_effort: bool = False
    generation: int = 1

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)


class PullSecret(Struct, frozen=True):
    """A registry secret; `credentials` maps a host to an opaque text that stands for user and password."""

    namespace: str
    name: str
    credentials: Mapping[str, str] = {}


class Timings(Struct, frozen=True):
    """How long the kubelet's and runtime's own steps take, in seconds; defaults as in the traces of kubelet 1.36.3."""

    mount: float = 0.3
    """podAttachAndMountRetryInterval: a pod with volumes waits one round of it."""
    sandbox: float = 0.085
    create: float = 0.015
    start: float = 0.07
    stop_sandbox: float = 0.08
    relist: float = 1.004
    """Period of the pod lifecycle event generator (genericPlegRelistPeriod), its own work included."""
    relist_joins: bool = True
    """Whether several changes of a pod found by one relist lead to one sync; in a real kubelet either may happen."""
    tick: float = 1.0
    """Period at which due retries are looked at (kubelet's syncTicker)."""
    retry_min: float = 10.0
    retry_max: float = 15.0
    """A sync that failed is repeated after 10 s with up to half of it as jitter (workerBackOffPeriodJitterFactor)."""
    resync_min: float = 60.0
    resync_max: float = 90.0
    resolve: float = 0.008
    """Manifest request and check of a present image."""
    silent_timeout: float = 30.0
    """containerd's wait for response headers, for each endpoint."""
    restart: float = 1.26
    """From the start of a kubelet until it looks at its pods."""
    image_list: float = 30.0
    """How old the list of images may be that node status is made from."""
    node_status: float = 10.0


class NodeProfile(Struct, frozen=True):
    """One node: sizes in bytes, rates in bytes a second."""

    name: str
    labels: Mapping[str, str] = {}
    taints: tuple[Taint, ...] = ()
    allocatable: Resources = Resources(milli_cpu=8000, memory=32 << 30)
    max_pods: int = 110
    bandwidth: float = 125e6
    unpack_rate: float = 500e6
    """Compressed bytes a second that the runtime unpacks, one layer after another."""
    pull_slots: int | None = 1
    """Pulls at once: 1 is serializeImagePulls, None is no limit."""
    registry_qps: float = 5.0
    registry_burst: int = 10
    runtime: Runtime = Runtime.CONTAINERD_2
    image_disk: float = 100e9
    disk_expansion: float = 2.0
    """Disk bytes for each compressed byte: the content store keeps the blob beside what was unpacked."""
    gc_high_percent: int = 85
    gc_low_percent: int = 80
    gc_minimum_age: float = 120.0
    gc_period: float = 300.0
    eviction_percent: int = 15
    """imagefs.available below which the kubelet reports disk pressure and reclaims."""
    status_max_images: int | None = 50
    pod_ip_prefix: str = "10.0.0."
    host_ip: str = "192.0.2.1"
    timings: Timings = Timings()


Chance = Callable[..., float]
"""Gives a number in [0, 1) for what the kubelet leaves to chance, from words that say what it is for."""


def fraction(*parts: object) -> float:
    """A number in [0, 1) that follows from its arguments: the model's own chance, so that runs repeat."""
    digest = blake2b("\0".join(map(str, parts)).encode(), digest_size=7).digest()
    return int.from_bytes(digest) / (1 << 56)
