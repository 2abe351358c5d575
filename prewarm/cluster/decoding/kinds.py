"""One decoder a kind: lists, watch events and single objects to keys and model values."""

from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from prewarm.api.image_cache import decode_image_cache
from prewarm.api.node_image import decode_node_images
from prewarm.api.policy import decode_policy
from prewarm.cluster.decoding import (
    argo_rollouts,
    autoscalers,
    batch,
    flagger,
    flux,
    kruise,
    nodes,
    others,
    pods,
    quotas,
    scheduling,
    volumes,
    workloads,
)
from prewarm.cluster.decoding.common import WireMeta, WireObject
from prewarm.cluster.decoding.depth import shallow
from prewarm.cluster.decoding.problems import Problems, Report
from prewarm.model import intents
from prewarm.model.image_caches import ImageCache, Policy
from prewarm.model.intents import Resource
from prewarm.model.nodes import Node, NodeImages
from prewarm.model.pods import Pod
from prewarm.model.progressive import ImagePolicy, Revision
from prewarm.model.quotas import LimitRange, ResourceQuota
from prewarm.model.scheduling import DisruptionBudget, PriorityClass
from prewarm.model.snapshot import ObjectKey
from prewarm.model.volumes import AttachLimits, Volume, VolumeClaim
from prewarm.model.workloads import Autoscaler, KubeletEvent, Namespace, Service, Workload


class _HasMetadata(Protocol):
    metadata: WireMeta


Result = TypeVar("Result")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
W = TypeVar("W", bound=_HasMetadata)

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Decoded(Struct, Generic[T_co], frozen=True, gc=False):
    """An object's key and value; `value` None if it exists but cannot be understood."""

    key: ObjectKey
    value: T_co | None
    resource_version: str = ""


class DecodedPage(Struct, Generic[T_co], frozen=True):
    """A page of a list."""

    items: list[Decoded[T_co]]
    resource_version: str


class Change(Struct, Generic[T_co], frozen=True, gc=False):
    """One watch event; `type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: Decoded[T_co]
    initial_end: bool = False
    """Of a bookmark: all that was there has been sent (KEP-3157)."""
    error: msgspec.Raw | None = None
    """Of ERROR: the Status."""


class _RawEvent(Struct):
    type: str
    object: msgspec.Raw


class _ListMeta(Struct, rename="camel"):
    resource_version: str = ""


class _WireList(Struct, Generic[T]):
    metadata: _ListMeta = field(default_factory=_ListMeta)
    items: list[T] | None = None


class _WireChange(Struct, Generic[T]):
    type: str
    object: T


class Kind(Protocol[T_co]):
    """How objects of one kind are read."""

    resource: Resource

    def page(self, body: bytes) -> DecodedPage[T_co]:
        """A list answer."""

    def change(self, line: bytes) -> Change[T_co]:
        """A line of a watch."""

    def one(self, raw: bytes | msgspec.Raw) -> Decoded[T_co]:
        """A single object."""


class TypedKind(Generic[W, T]):
    """A kind decoded into a narrow struct `wire`, then converted."""

    def __init__(
        self, resource: Resource, wire: type[W], convert: Callable[[W, Report], T | None], problems: Problems
    ) -> None:
        self.resource = resource
        self._convert = convert
        self._problems = problems
        self._one: msgspec.json.Decoder[W] = msgspec.json.Decoder(wire)
        self._list: msgspec.json.Decoder[_WireList[W]] = msgspec.json.Decoder(_WireList[wire])  # type: ignore[valid-type]
        self._change: msgspec.json.Decoder[_WireChange[W]] = msgspec.json.Decoder(_WireChange[wire])  # type: ignore[valid-type]

    def page(self, body: bytes) -> DecodedPage[T]:
        """All items at once; one by one only if some item is malformed.

        Raises:
            msgspec.DecodeError: if the body is no list at all.
        """
        return _at_any_depth(self._page, body)

    def _page(self, body: bytes) -> DecodedPage[T]:
        try:
            page = self._list.decode(body)
        except msgspec.ValidationError:
            raw = _RAW_LIST.decode(body)
            return DecodedPage([self.one(item) for item in raw.items or ()], raw.metadata.resource_version)
        return DecodedPage([self._decoded(item) for item in page.items or ()], page.metadata.resource_version)

    def change(self, line: bytes) -> Change[T]:
        """A watch event.

        Raises:
            msgspec.DecodeError: if the line is no watch event.
        """
        return _at_any_depth(self._changed, line)

    def _changed(self, line: bytes) -> Change[T]:
        try:
            change = self._change.decode(line)
        except msgspec.ValidationError:
            return _unusual(self, line)
        if change.type in _WITH_OBJECT:
            return Change(change.type, self._decoded(change.object))
        return _unusual(self, line)

    def one(self, raw: bytes | msgspec.Raw) -> Decoded[T]:
        """A single object; one that is malformed keeps its key."""
        return _at_any_depth(self._single, bytes(raw))

    def _single(self, raw: bytes) -> Decoded[T]:
        try:
            return self._decoded(self._one.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _not_understood(self.resource, raw, error, self._problems)

    def _decoded(self, wire: W) -> Decoded[T]:
        meta = wire.metadata
        namespace, name = meta.namespace, meta.name

        def report(problem: str) -> None:
            self._problems.report(self.resource.kind, namespace, name, problem)

        value: T | None = None
        try:
            value = self._convert(wire, report)
        except (OverflowError, msgspec.DecodeError) as error:
            report(f"left out: {error}")
        return Decoded((namespace, name), value, meta.resource_version)


class MappingKind(Generic[T]):
    """A kind of ours, few objects: decoded as plain JSON by `prewarm.api`, which never raises."""

    def __init__(self, resource: Resource, convert: Callable[[Mapping[str, object]], T], problems: Problems) -> None:
        self.resource = resource
        self._convert = convert
        self._problems = problems

    def page(self, body: bytes) -> DecodedPage[T]:
        """A list answer.

        Raises:
            msgspec.DecodeError: if the body is no list at all.
        """
        return _at_any_depth(self._page, body)

    def _page(self, body: bytes) -> DecodedPage[T]:
        raw = _RAW_LIST.decode(body)
        return DecodedPage([self.one(item) for item in raw.items or ()], raw.metadata.resource_version)

    def change(self, line: bytes) -> Change[T]:
        """A watch event.

        Raises:
            msgspec.DecodeError: if the line is no watch event.
        """
        return _at_any_depth(lambda text: _unusual(self, text), line)

    def one(self, raw: bytes | msgspec.Raw) -> Decoded[T]:
        """A single object; one that is malformed keeps its key."""
        return _at_any_depth(self._single, bytes(raw))

    def _single(self, raw: bytes) -> Decoded[T]:
        try:
            meta = _HEADER.decode(raw).metadata
            value = self._convert(msgspec.json.decode(raw, type=dict[str, object]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _not_understood(self.resource, raw, error, self._problems)
        return Decoded((meta.namespace, meta.name), value, meta.resource_version)


def _at_any_depth(decode: Callable[[bytes], Result], text: bytes) -> Result:
    """Decode a text; of one that nests too deep, what is not."""
    try:
        return decode(text)
    except RecursionError:
        return decode(shallow(text))


_RAW_LIST = msgspec.json.Decoder(_WireList[msgspec.Raw])
_RAW_EVENT = msgspec.json.Decoder(_RawEvent)
_HEADER = msgspec.json.Decoder(WireObject)
_WITH_OBJECT = frozenset({"ADDED", "MODIFIED", "DELETED"})


def _unusual(kind: Kind[T], line: bytes) -> Change[T]:
    """Bookmarks, errors and objects that are malformed."""
    event = _RAW_EVENT.decode(line)
    match event.type:
        case "ERROR":
            return Change(event.type, Decoded(("", ""), None), error=event.object)
        case "BOOKMARK":
            meta = _HEADER.decode(event.object).metadata
            ended = (meta.annotations or {}).get(_INITIAL_EVENTS_END) == "true"
            return Change(event.type, Decoded(("", ""), None, meta.resource_version), ended)
        case _:
            return Change(event.type, kind.one(event.object))


def _not_understood(resource: Resource, raw: bytes | msgspec.Raw, error: Exception, problems: Problems) -> Decoded[T]:
    try:
        meta = _HEADER.decode(raw).metadata
    except (msgspec.DecodeError, UnicodeDecodeError):
        meta = WireMeta()
    problems.report(resource.kind, meta.namespace, meta.name, f"left out: {error}")
    return Decoded((meta.namespace, meta.name), None, meta.resource_version)


class Kinds:
    """The decoders of all kinds that planning reads; they share one record of problems."""

    def __init__(self, problems: Problems | None = None) -> None:
        self.problems = problems or Problems()
        found = self.problems

        def workload(resource: Resource) -> Kind[Workload]:
            return TypedKind(resource, workloads.WireWorkload, workloads.workload_converter(resource), found)

        self.pods: Kind[Pod] = TypedKind(intents.PODS, pods.WirePod, pods.pod, found)
        self.nodes: Kind[Node] = TypedKind(intents.NODES, nodes.WireNode, nodes.node, found)
        self.deployments = workload(intents.DEPLOYMENTS)
        self.replica_sets = workload(intents.REPLICA_SETS)
        self.stateful_sets = workload(intents.STATEFUL_SETS)
        self.daemon_sets = workload(intents.DAEMON_SETS)

        self.jobs: Kind[Workload] = TypedKind(intents.JOBS, batch.WireJob, batch.job, found)
        self.cron_jobs: Kind[Workload] = TypedKind(intents.CRON_JOBS, batch.WireCronJob, batch.cron_job, found)

        def of_kruise(resource: Resource) -> Kind[Workload]:
            return TypedKind(resource, kruise.WireKruise, kruise.kruise_converter(resource), found)

        self.clone_sets = of_kruise(intents.CLONE_SETS)
        self.advanced_stateful_sets = of_kruise(intents.ADVANCED_STATEFUL_SETS)
        self.advanced_daemon_sets = of_kruise(intents.ADVANCED_DAEMON_SETS)
        self.revisions: Kind[Revision] = TypedKind(
            intents.CONTROLLER_REVISIONS, kruise.WireRevision, kruise.revision, found
        )
        self.rollouts: Kind[Workload] = TypedKind(
            intents.ROLLOUTS, argo_rollouts.WireRollout, argo_rollouts.rollout, found
        )
        self.canaries: Kind[Workload] = TypedKind(intents.CANARIES, flagger.WireFlagger, flagger.canary, found)
        self.image_policies: Kind[ImagePolicy] = TypedKind(
            intents.IMAGE_POLICIES, flux.WireImagePolicy, flux.image_policy, found
        )
        self.autoscalers: Kind[Autoscaler] = TypedKind(
            intents.AUTOSCALERS, autoscalers.WireAutoscaler, autoscalers.autoscaler, found
        )
        self.services: Kind[Service] = TypedKind(intents.SERVICES, others.WireService, others.service, found)
        self.namespaces: Kind[Namespace] = TypedKind(intents.NAMESPACES, others.WireNamespace, others.namespace, found)
        self.quotas: Kind[ResourceQuota] = TypedKind(
            intents.RESOURCE_QUOTAS, quotas.WireQuota, quotas.resource_quota, found
        )
        self.limit_ranges: Kind[LimitRange] = TypedKind(
            intents.LIMIT_RANGES, quotas.WireLimitRange, quotas.limit_range, found
        )
        self.volume_claims: Kind[VolumeClaim] = TypedKind(
            intents.VOLUME_CLAIMS, volumes.WireVolumeClaim, volumes.volume_claim, found
        )
        self.volumes: Kind[Volume] = TypedKind(intents.VOLUMES, volumes.WireVolume, volumes.volume, found)
        self.priority_classes: Kind[PriorityClass] = TypedKind(
            intents.PRIORITY_CLASSES, scheduling.WirePriorityClass, scheduling.priority_class, found
        )
        self.disruption_budgets: Kind[DisruptionBudget] = TypedKind(
            intents.DISRUPTION_BUDGETS, scheduling.WireBudget, scheduling.disruption_budget, found
        )
        self.attach_limits: Kind[AttachLimits] = TypedKind(
            intents.CSI_NODES, scheduling.WireCSINode, scheduling.attach_limits, found
        )
        self.events: Kind[KubeletEvent] = TypedKind(intents.EVENTS, others.WireEvent, others.kubelet_event, found)
        self.image_caches: Kind[ImageCache] = MappingKind(intents.IMAGE_CACHES, decode_image_cache, found)
        self.node_images: Kind[NodeImages] = MappingKind(intents.NODE_IMAGES, decode_node_images, found)
        self.policies: Kind[Policy] = MappingKind(intents.POLICIES, decode_policy, found)
