"""Workloads of other projects as far as they differ from Kubernetes' own: OpenKruise, Argo Rollouts, Flagger, Flux."""

from enum import StrEnum

from msgspec import Struct

from prewarm.model.selectors import LabelSelector

_KRUISE_GROUP = "apps.kruise.io"
_OWN_NAMES = {"StatefulSet": "AdvancedStatefulSet", "DaemonSet": "AdvancedDaemonSet"}
_API_NAMES = {ours: theirs for theirs, ours in _OWN_NAMES.items()}
IN_PLACE_KINDS = frozenset({"CloneSet", *_API_NAMES})
"""Kinds of OpenKruise whose pods may get a new image without being replaced."""


def workload_kind(api_version: str, kind: str) -> str:
    """A kind as workloads are told apart here: OpenKruise's StatefulSet and DaemonSet share names with apps/v1."""
    return _OWN_NAMES.get(kind, kind) if api_version.partition("/")[0] == _KRUISE_GROUP else kind


def api_kind(kind: str) -> str:
    """The kind as manifests and owner references write it."""
    return _API_NAMES.get(kind, kind)


PRIMARY_SUFFIX = "-primary"
"""Flagger copies a Canary's target to a Deployment with this ending, which serves while the target is on trial."""


class InPlace(StrEnum):
    """Whether pods are changed instead of replaced."""

    NEVER = "Never"
    IF_POSSIBLE = "IfPossible"
    """Where nothing but images of containers differs."""
    ONLY = "Only"
    """Other changes are refused."""


class PriorityTerm(Struct, frozen=True):
    """One term of OpenKruise's priorityStrategy: matching pods go first, or those with the larger number in a label."""

    weight: int = 0
    selector: LabelSelector | None = None
    ordered_key: str = ""


class UpdateOrder(Struct, frozen=True):
    """Which pods an update of OpenKruise takes first."""

    priority: tuple[PriorityTerm, ...] = ()
    scatter: tuple[tuple[str, str], ...] = ()
    """Labels whose pods are spread over the whole update."""
    selector: LabelSelector | None = None
    """Of an Advanced DaemonSet: only nodes with these labels are updated; None = all."""
    unordered: bool = False
    """Of an Advanced StatefulSet: its pods are updated in this order instead of by ordinal."""


class ImagePolicy(Struct, frozen=True):
    """An ImagePolicy of Flux."""

    namespace: str
    name: str
    image: str = ""
    """The latest one by its rules, which Flux will write into manifests; "" if it has found none."""
    resource_version: str = ""


class Revision(Struct, frozen=True):
    """A ControllerRevision of one of OpenKruise's kinds."""

    namespace: str
    name: str
    owner_uid: str
    rest_hash: str = ""
    """Hash of the template without the images of its containers: equal ones can be updated in place."""
    pre_downloaded: bool = False
    """OpenKruise has ordered the revision's images on the nodes of old pods itself."""
    resource_version: str = ""


class CanaryStep(Struct, frozen=True):
    """One step of an Argo Rollout's canary; fields that are None leave things as they are."""

    weight: int | None = None
    """Percent of the traffic, and so of the pods where nothing else is said."""
    scale_replicas: int | None = None
    scale_weight: int | None = None
    match_traffic: bool = False
    """Takes an earlier scale back."""
    pause_seconds: float | None = None
    """How long the step lasts."""
    waits: bool = False
    """It lasts until a person, an analysis or an experiment says so: nobody knows how long."""


class Rollout(Struct, frozen=True):
    """Strategy and state of an Argo Rollout."""

    blue_green: bool = False
    routed: bool = False
    """A traffic router sends the canary its share: the stable pods all stay until the end."""
    shrinks_stable: bool = False
    """dynamicStableScale: stable pods go as traffic leaves them."""
    steps: tuple[CanaryStep, ...] = ()
    step: int = 0
    """status.currentStepIndex; as many as there are steps once all are done."""
    paused_at: float | None = None
    """When the pause began that is on; None if none is."""
    preview_replicas: int | None = None
    """Of blue-green: pods of the new revision until it is promoted; None = all."""
    promotion_seconds: float | None = None
    """Of blue-green: until it is promoted by itself; None = a person does."""
    stable_hash: str = ""
    """status.stableRS."""
    current_hash: str = ""
    """status.currentPodHash."""
    aborted: bool = False
    promoted: bool = False
    """status.promoteFull: steps and pauses are passed over."""
    doubted: bool = False
    """An analysis of this revision failed, ended in error or was inconclusive."""
    workload_ref: str = ""
    """Name of the Deployment whose template it takes; "" = its own template."""


class FlaggerPhase(StrEnum):
    """status.phase of a Canary."""

    INITIALIZING = "Initializing"
    INITIALIZED = "Initialized"
    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    WAITING_PROMOTION = "WaitingPromotion"
    PROMOTING = "Promoting"
    FINALISING = "Finalising"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"


class Flagger(Struct, frozen=True):
    """Target and state of a Flagger Canary."""

    target_kind: str
    target_name: str
    phase: FlaggerPhase = FlaggerPhase.INITIALIZING
    interval_seconds: float = 60.0
    """Between two checks."""
    checks_left: int = 0
    """Until the analysis is over if none fails."""
    checks_passed: bool = False
    """At least one check since the change."""
    checks_failed: int = 0
