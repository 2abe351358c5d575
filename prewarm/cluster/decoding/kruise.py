"""OpenKruise's CloneSet, Advanced StatefulSet and Advanced DaemonSet, and the revisions of their templates."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from prewarm.cluster.decoding.common import WireMeta, WireSelector, controlling_owner, label_selector
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.workloads import (
    WireClaimTemplate,
    WireOrdinals,
    WireWorkloadStatus,
    common_status,
    decoded_template,
    update_strategy,
    workload_of,
)
from prewarm.model.intents import CLONE_SETS, Resource
from prewarm.model.progressive import InPlace, PriorityTerm, Revision, UpdateOrder, workload_kind
from prewarm.model.quantities import int_or_percent
from prewarm.model.workloads import UpdateStrategy, Workload

MAX_TERMS = 16
"""Terms of a priority or scatter strategy that are heeded."""
MAX_RESERVED = 1_000
"""Reserved ordinals of a StatefulSet that are heeded."""
_IN_PLACE = {"InPlaceIfPossible": InPlace.IF_POSSIBLE, "InPlaceOnly": InPlace.ONLY}
_RECREATES = frozenset({"", "ReCreate", *_IN_PLACE})
_PRE_DOWNLOADS = ("apps.kruise.io/pre-predownload-created",)
_IGNORED = "apps.kruise.io/image-predownload-ignored"
_HASH_BYTES = 10


class WireWeightTerm(Struct, rename="camel", gc=False):
    """priorityStrategy.weightPriority[]."""

    weight: int = 0
    match_selector: WireSelector | None = None


class WireOrderTerm(Struct, rename="camel", gc=False):
    """priorityStrategy.orderPriority[]."""

    ordered_key: str = ""


class WirePriority(Struct, rename="camel", gc=False):
    """priorityStrategy."""

    weight_priority: list[WireWeightTerm] | None = None
    order_priority: list[WireOrderTerm] | None = None


class WireScatterTerm(Struct, gc=False):
    """scatterStrategy[]."""

    key: str = ""
    value: str = ""


class WireUnordered(Struct, rename="camel", gc=False):
    """rollingUpdate.unorderedUpdate of an Advanced StatefulSet."""

    priority_strategy: WirePriority | None = None


class WireKruiseRolling(Struct, rename="camel", gc=False):
    """updateStrategy.rollingUpdate of all three kinds, and updateStrategy of a CloneSet in v1alpha1."""

    type: str = ""
    rolling_update_type: str = ""
    pod_update_policy: str = ""
    partition: int | str | None = None
    max_surge: int | str | None = None
    max_unavailable: int | str | None = None
    paused: bool | None = None
    min_ready_seconds: int | None = None
    selector: WireSelector | None = None
    unordered_update: WireUnordered | None = None
    priority_strategy: WirePriority | None = None
    scatter_strategy: list[WireScatterTerm] | None = None


class WireKruiseStrategy(WireKruiseRolling, rename="camel", gc=False):
    """updateStrategy."""

    rolling_update: WireKruiseRolling | None = None


class WireKruiseSpec(Struct, rename="camel", gc=False):
    """Spec of all three kinds."""

    template: msgspec.Raw = field(default_factory=msgspec.Raw)
    replicas: int | None = None
    selector: WireSelector | None = None
    update_strategy: WireKruiseStrategy | None = None
    min_ready_seconds: int = 0
    ordinals: WireOrdinals | None = None
    reserve_ordinals: list[int | str] | None = None
    pod_management_policy: str = ""
    volume_claim_templates: list[WireClaimTemplate] | None = None


class WireKruiseStatus(WireWorkloadStatus, rename="camel", gc=False):
    """Status of all three kinds."""

    daemon_set_hash: str = ""


class WireKruise(Struct, rename="camel", gc=False):
    """A CloneSet, StatefulSet or DaemonSet of apps.kruise.io."""

    metadata: WireMeta
    api_version: str = ""
    spec: WireKruiseSpec = field(default_factory=WireKruiseSpec)
    status: WireKruiseStatus = field(default_factory=WireKruiseStatus)


class WireRevision(Struct, gc=False):
    """apps/v1 ControllerRevision."""

    metadata: WireMeta
    data: msgspec.Raw = field(default_factory=msgspec.Raw)


class _RevisedSpec(Struct):
    template: dict[str, object] = {}


class _Revised(Struct):
    spec: _RevisedSpec = field(default_factory=_RevisedSpec)


_REVISED = msgspec.json.Decoder(_Revised)


def kruise_converter(resource: Resource) -> Callable[[WireKruise, Report], Workload]:
    """The conversion for one of the three kinds."""

    def convert(wire: WireKruise, report: Report) -> Workload:
        return _workload(resource, wire, report)

    return convert


def revision(wire: WireRevision, report: Report) -> Revision | None:
    """A revision of one of OpenKruise's kinds; None for those of others, which nothing here depends on."""
    owner = controlling_owner(wire.metadata)
    if owner is None or workload_kind(owner.api_version, owner.kind) not in _OWNERS:
        return None
    if owner.api_version.partition("/")[0] != CLONE_SETS.group:
        return None
    labels = wire.metadata.labels or {}
    return Revision(
        namespace=wire.metadata.namespace,
        name=wire.metadata.name,
        owner_uid=owner.uid,
        rest_hash=_rest_hash(wire.data, report),
        pre_downloaded=_IGNORED not in labels and any(label in labels for label in _PRE_DOWNLOADS),
        resource_version=wire.metadata.resource_version,
    )


_OWNERS = frozenset({"CloneSet", "AdvancedStatefulSet", "AdvancedDaemonSet"})


def _rest_hash(data: msgspec.Raw, report: Report) -> str:
    """Hash of the template without its containers' images; "" if there is no template."""
    if not bytes(data):
        return ""
    try:
        template = _REVISED.decode(data).spec.template
    except (msgspec.DecodeError, RecursionError) as error:
        report(f"data: {error}")
        return ""
    if not template:
        return ""
    template.pop("$patch", None)
    if isinstance(metadata := template.get("metadata"), dict):
        metadata.pop("creationTimestamp", None)
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    for container in containers if isinstance(containers, list) else ():
        if isinstance(container, dict):
            container.pop("image", None)
    return blake2b(msgspec.json.encode(template, order="sorted"), digest_size=_HASH_BYTES).hexdigest()


def _workload(resource: Resource, wire: WireKruise, report: Report) -> Workload:
    meta, spec, status = wire.metadata, wire.spec, wire.status
    kind = workload_kind(resource.api_version, resource.kind)
    strategy = spec.update_strategy or WireKruiseStrategy()
    # A CloneSet has these fields in updateStrategy itself (v1alpha1) or one level deeper (v1beta1).
    rolling = strategy.rolling_update or (strategy if kind == "CloneSet" else WireKruiseRolling())
    template, hashed = decoded_template(spec.template, report)
    base = workload_of(kind, meta, template, hashed, label_selector(spec.selector, report))
    replicas = 1 if spec.replicas is None else spec.replicas
    if kind == "AdvancedDaemonSet":
        replicas = status.desired_number_scheduled
    surge = _surge(kind, rolling)
    return replace(
        common_status(base, status, per_node=kind == "AdvancedDaemonSet"),
        api_version=wire.api_version or resource.api_version,
        replicas=replicas,
        strategy=_strategy(kind, strategy.type, report),
        in_place=_in_place(kind, strategy, rolling),
        max_surge=surge,
        max_unavailable=_unavailable(kind, rolling, replicas, surge, report),
        partition=_partition(rolling, replicas, report),
        update_order=_order(kind, rolling, report),
        first_ordinal=0 if spec.ordinals is None else max(0, spec.ordinals.start),
        reserved_ordinals=_reserved(spec.reserve_ordinals or ()),
        parallel=spec.pod_management_policy == "Parallel",
        update_revision=status.daemon_set_hash or status.update_revision,
        min_ready_seconds=spec.min_ready_seconds or rolling.min_ready_seconds or 0,
        paused=bool(rolling.paused or strategy.paused),
        claim_templates=_claim_templates(kind, spec),
    )


def _claim_templates(kind: str, spec: WireKruiseSpec) -> tuple[str, ...]:
    """Those of an Advanced StatefulSet: claims of a CloneSet's pods are named by an instance id, and stay unknown."""
    templates = spec.volume_claim_templates or () if kind == "AdvancedStatefulSet" else ()
    return tuple(claim.metadata.name for claim in templates)


def _reserved(values: Sequence[int | str]) -> tuple[int, ...]:
    """Numbers, or ranges such as 2-5."""
    found: list[int] = []
    for value in values[:MAX_RESERVED]:
        first, dash, last = str(value).partition("-")
        last = last if dash else first
        if all(text.isdecimal() and text.isascii() and len(text) < 10 for text in (first, last)):
            found += range(int(first), min(int(last), int(first) + MAX_RESERVED) + 1)
    return tuple(found[:MAX_RESERVED])


def _strategy(kind: str, text: str, report: Report) -> UpdateStrategy:
    return UpdateStrategy.ROLLING_UPDATE if kind == "CloneSet" and text in _RECREATES else update_strategy(text, report)


def _in_place(kind: str, strategy: WireKruiseStrategy, rolling: WireKruiseRolling) -> InPlace:
    match kind:
        case "CloneSet":
            return _IN_PLACE.get(strategy.type) or _IN_PLACE.get(rolling.pod_update_policy, InPlace.NEVER)
        case "AdvancedStatefulSet":
            return _IN_PLACE.get(rolling.pod_update_policy, InPlace.NEVER)
        case _:
            return _IN_PLACE.get(rolling.rolling_update_type, InPlace.NEVER)


def _surge(kind: str, rolling: WireKruiseRolling) -> int | str:
    if kind == "AdvancedDaemonSet" and rolling.rolling_update_type == "Surging":
        return 1 if rolling.max_surge is None else rolling.max_surge
    return (rolling.max_surge or 0) if kind != "AdvancedStatefulSet" else 0


def _unavailable(kind: str, rolling: WireKruiseRolling, replicas: int, surge: int | str, report: Report) -> int | str:
    """MaxUnavailable; of a CloneSet without surge as a number, since its percentages round up, not down."""
    if kind != "CloneSet":
        return 1 if rolling.max_unavailable is None else rolling.max_unavailable
    value = "20%" if rolling.max_unavailable is None else rolling.max_unavailable
    if surge not in (0, "0", "0%"):
        return value
    return _number(value, replicas, "maxUnavailable", report, default=value)


def _partition(rolling: WireKruiseRolling, replicas: int, report: Report) -> int:
    """Pods (or for ordered StatefulSets ordinals) that keep their revision; a percentage leaves at least one pod over.

    Rule of CalculatePartitionReplicas in OpenKruise's pkg/util.
    """
    value = rolling.partition
    kept = _number(0 if value is None else value, replicas, "partition", report, default=0)
    kept = kept if isinstance(kept, int) else 0
    if isinstance(value, str) and value.endswith("%") and value != "100%" and replicas > 1:
        kept = min(kept, replicas - 1)
    return max(0, kept)


def _number(value: int | str, of: int, name: str, report: Report, *, default: int | str) -> int | str:
    try:
        return int_or_percent(value, of, round_up=True)
    except ValueError as error:
        report(f"{name}: {error}")
        return default


def _order(kind: str, rolling: WireKruiseRolling, report: Report) -> UpdateOrder:
    if kind == "AdvancedDaemonSet":
        return UpdateOrder(selector=label_selector(rolling.selector, report))
    unordered = rolling.unordered_update
    wire = rolling.priority_strategy or (unordered.priority_strategy if unordered else None) or WirePriority()
    weights = (
        PriorityTerm(term.weight, selector=label_selector(term.match_selector, report))
        for term in (wire.weight_priority or ())[:MAX_TERMS]
    )
    keys = (PriorityTerm(ordered_key=term.ordered_key) for term in (wire.order_priority or ())[:MAX_TERMS])
    scatter = tuple((term.key, term.value) for term in (rolling.scatter_strategy or ())[:MAX_TERMS])
    return UpdateOrder((*weights, *keys), scatter, unordered=unordered is not None)
