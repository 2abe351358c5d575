"""ImageCache and PrewarmPolicy objects as the core sees them, decoded and bounded by `prewarm.api`."""

from enum import StrEnum

from msgspec import Struct

from prewarm.model.images import PullPolicy
from prewarm.model.pods import OwnerReference, Toleration
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm
from prewarm.model.steering import Steer


class Limits(Struct, frozen=True):
    """spec.limits of a PrewarmPolicy: what the ImageCaches of one namespace may have together; None: no limit."""

    images: int | None = None
    """Different images."""
    nodes: int | None = None
    """Nodes that have images for the namespace."""
    bytes: int | None = None
    """Sum over pairs of image and node."""
    priority: int | None = None
    """The highest spec.priority that counts."""
    holds: int | None = None
    """Finished pods that hold images at a time."""
    registries: tuple[str, ...] | None = None
    """Registries, or repositories below them, that images may come from; empty: none may."""
    node_selector: tuple[tuple[str, str], ...] = ()
    """Labels that a node must have."""


class Allowance(Struct, frozen=True):
    """What the limits of its namespace leave of one ImageCache; images are in canonical spelling."""

    limits: Limits
    images: frozenset[str] = frozenset()
    """Those within limits.images."""
    nodes: frozenset[str] = frozenset()
    """Those within limits.nodes."""
    too_large: frozenset[tuple[str, str]] = frozenset()
    """Node and image of pairs that are beyond limits.bytes."""


class ImageList(Struct, frozen=True):
    """One entry of spec.cacheSpec; without names and selectors: every node."""

    images: tuple[str, ...]
    node_names: tuple[str, ...] | None = None
    node_selector: tuple[tuple[str, str], ...] = ()
    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()
    """A node must meet one of them, if there are any."""
    pod_selector: LabelSelector | None = None
    """Nodes of unfinished pods of the cache's namespace with such labels."""


class Completion(Struct, frozen=True):
    """spec.completion; durations are in seconds."""

    once: bool = False
    deadline_seconds: int | None = None
    ttl_seconds: int | None = None


class Schedule(Struct, frozen=True):
    """spec.schedule: when the cache is refreshed."""

    cron: str
    time_zone: str = "Etc/UTC"


class DeletionPolicy(StrEnum):
    """What becomes of images that a cache pulled and does not want any more."""

    RETAIN = "Retain"
    PURGE = "Purge"


class PullerForm(StrEnum):
    """How a puller pod has the kubelet pull."""

    CONTAINER = "Container"
    """A container with the image runs a static binary of ours."""
    VOLUME = "Volume"
    """A container of ours mounts the image."""


class PodRetention(StrEnum):
    """Which finished puller pods are kept for a while, so that people can look at them."""

    NEVER = "Never"
    ON_FAILURE = "OnFailure"
    ALWAYS = "Always"


class Condition(Struct, frozen=True):
    """A status condition; `since` is lastTransitionTime in Unix seconds."""

    type: str
    status: bool
    reason: str
    message: str
    since: float


class PullFailure(Struct, frozen=True):
    """A pair of image and node that failed, with the kubelet's or server's own words."""

    image: str
    node: str
    reason: str
    message: str
    attempts: int = 1
    at: float = 0.0


class ImageCacheStatus(Struct, frozen=True):
    """status of an ImageCache; counts are pairs of image and node."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    desired: int = 0
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    failures: tuple[PullFailure, ...] = ()
    started_at: float | None = None
    completed_at: float | None = None
    refreshed_at: float | None = None
    """When the last refresh began, by interval, schedule or request."""
    requested_at: float | None = None
    """When the last refresh by annotation began."""
    refresh_handled: str = ""
    """The last value of prewarm.dev/refresh that was acted on."""
    purge_handled: str = ""
    """The last value of prewarm.dev/purge that was acted on."""
    purged_at: float | None = None
    """When the last purge by annotation began; None once the images are wanted again."""
    purged_generation: int = 0
    """The generation of the spec that was purged: another one wants its images again."""
    removal_round: str = ""
    """Which round of removals the next number speaks of."""
    removal_total: int = 0
    """Pairs of image and node that were to be removed in that round."""


class ImageCache(Struct, frozen=True):
    """An ImageCache object; times are Unix seconds."""

    namespace: str
    name: str
    uid: str = ""
    generation: int = 0
    lists: tuple[ImageList, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    pull_policy: PullPolicy | None = None
    """None: as the controller is set."""
    tolerations: tuple[Toleration, ...] = ()
    parallelism: int | str | None = None
    attempt_timeout_seconds: int | None = None
    """None: as the controller is set."""
    attempt_limit: int = 5
    suspend: bool = False
    priority: int = 0
    needed_by: float | None = None
    completion: Completion = Completion()
    refresh_seconds: float | None = None
    """None: as the controller is set; 0: never."""
    schedule: Schedule | None = None
    hold_seconds: float | None = None
    hold_present: bool = False
    """Hold what was on a node already, too."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    puller_form: PullerForm | None = None
    """None: as a policy says, else as the controller is set."""
    priority_class: str = ""
    refresh_request: str | None = None
    """Value of the annotation prewarm.dev/refresh; None without it."""
    purge_request: str | None = None
    """Value of the annotation prewarm.dev/purge; None without it."""
    pod_retention: PodRetention | None = None
    """Annotation prewarm.dev/keep-pods; None: as the controller is set."""
    created_at: float = 0.0
    deleted_at: float | None = None
    owner: OwnerReference | None = None
    planned: bool = False
    """Written by our planner (label prewarm.dev/planned), not by a person."""
    workload: str = ""
    """Of a planned one: kind/namespace/name of the workload, from annotation prewarm.dev/workload."""
    plan_annotation: str = ""
    """Of a planned one: the annotation prewarm.dev/plan (trigger, revision, probabilities), as written."""
    status: ImageCacheStatus = ImageCacheStatus()
    resource_version: str = ""
    error: str = ""
    """Why the spec cannot be acted on; "" if it can."""
    allowance: Allowance | None = None
    """What the limits of the namespace leave of it, as the puller finds out; never stored. None: all of it."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)


class Canaries(Struct, frozen=True):
    """spec.canary of a PrewarmPolicy: which Deployments are on trial, and for which others."""

    selector: LabelSelector
    """Labels of Deployments that are canaries."""
    shared_label: str
    """A canary is on trial for the Deployments of its namespace that have the same value of this label."""


class PolicyMode(StrEnum):
    """spec.mode of a PrewarmPolicy: act, only plan and account, or nothing."""

    ACTIVE = "Active"
    SHADOW = "Shadow"
    OFF = "Off"


class Policy(Struct, frozen=True):
    """A PrewarmPolicy object; the defaults are what a cluster without any policy object gets."""

    name: str = "default"
    mode: PolicyMode = PolicyMode.ACTIVE
    namespace_selector: LabelSelector | None = None
    """Workloads in matching namespaces are covered without an annotation; None = only those that opt in."""
    workload_selector: LabelSelector | None = None
    """Narrows the above by the workload's labels."""
    rollout: bool = True
    min_updated_ready_pods: int | str = 0
    """Pods of a new revision (number or percentage) that have to be ready before its images are pulled ahead."""
    gate_seconds: float | None = None
    """How long changes of its workloads' images are held at most, until the images are there; None: they are not."""
    scale_out: bool = True
    headroom_percent: int = 20
    """Replicas ahead of the current count for which a scaled workload is kept warm, in percent (rounded up)."""
    coverage: float = 0.99
    """Share of the predicted pods whose nodes should be warm."""
    max_overprovision: float = 1.5
    """Nodes to warm at most, as a multiple of the pods that are still to come."""
    max_waste: float = 0.1
    """Share of the pulls for a new revision that may be expected to be in vain."""
    steer: Steer = Steer.OFF
    """Whether pods are steered to warm nodes."""
    hold_seconds: float | None = None
    """How long images that were pulled for its workloads are held against garbage collection at most; None: not."""
    canaries: Canaries | None = None
    """Deployments that are canaries of its workloads; None: none are."""
    limits: Limits | None = None
    """For each namespace that it concerns; None: it sets none."""
    puller_form: PullerForm | None = None
    """For the ImageCaches that ask for none, in each namespace that it concerns; None: it does not say."""
    resource_version: str = ""
    error: str = ""
