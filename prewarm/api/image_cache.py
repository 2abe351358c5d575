"""ImageCache: images that nodes should have. Written by the planner and by people."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from msgspec.structs import replace
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from prewarm.api import names
from prewarm.api.errors import explain
from prewarm.api.fields import (
    LABEL_VALUE_LENGTH,
    ApiModel,
    Duration,
    Image,
    LabelMap,
    ObjectName,
    OptionalName,
    Time,
    api_time,
    cel,
    duration_text,
    rules,
    seconds_of,
    unix,
)
from prewarm.api.image_cache_status import StatusFields, decode_status
from prewarm.api.metadata import Metadata, decode_metadata
from prewarm.api.schedule import ScheduleFields
from prewarm.api.selectors import (
    NodeSelectorTermFields,
    Selector,
    label_selector,
    node_selector_term,
    selector_manifest,
    term_manifest,
)
from prewarm.model.image_caches import (
    Completion,
    DeletionPolicy,
    ImageCache,
    ImageCacheStatus,
    ImageList,
    PodRetention,
    PullerForm,
    Schedule,
)
from prewarm.model.images import PullPolicy
from prewarm.model.intents import Json, Manifest
from prewarm.model.pods import Toleration

MAX_LISTS = 32
MAX_IMAGES = 256
"""Images in one entry of cacheSpec, as many as OpenKruise's ImageListPullJob takes (255), and one."""
MAX_NODE_NAMES = 10_000
"""Node names in one entry of cacheSpec: 5,000 are 235 KB; etcd takes 1.5 MB."""


class CachePullPolicy(StrEnum):
    """spec.imagePullPolicy: Never would pull nothing."""

    IF_NOT_PRESENT = "IfNotPresent"
    ALWAYS = "Always"


class LocalReference(ApiModel):
    """An object of the same namespace."""

    name: ObjectName
    """Name of the Secret. It is handed to the kubelet by the puller pod; prewarm never reads it."""


class TolerationFields(ApiModel):
    """A toleration as pods have them: it lets pullers stay on nodes with NoExecute and control-plane taints."""

    key: Annotated[str, Field(max_length=317)] = ""
    """Key of the taint; empty with operator Exists tolerates every taint."""
    operator: Literal["Equal", "Exists", "Gt", "Lt"] = "Equal"
    """How the value is compared."""
    value: Annotated[str, Field(max_length=LABEL_VALUE_LENGTH)] = ""
    """Value of the taint; empty with operator Exists."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint; empty tolerates every effect."""

    @model_validator(mode="after")
    def _consistent(self) -> "TolerationFields":
        if self.operator == "Exists" and self.value:
            raise ValueError("a toleration with operator Exists has no value")
        if not self.key and self.operator != "Exists":
            raise ValueError("a toleration without a key needs operator Exists")
        return self


class CompletionType(StrEnum):
    """spec.completion.type."""

    CONTINUOUS = "Continuous"
    ONCE = "Once"


class DeletionPolicyName(StrEnum):
    """spec.deletionPolicy."""

    RETAIN = "Retain"
    PURGE = "Purge"


class PullerFormName(StrEnum):
    """spec.pullerForm."""

    CONTAINER = "Container"
    VOLUME = "Volume"


class CacheEntry(ApiModel):
    """Images, and the nodes that should have them.

    A node must fit all of nodeNames, nodeSelector, nodeSelectorTerms and podSelector that are given. Without any of
    them these are all nodes; those that take no pulls, such as the control plane's, are skipped with the reason.
    """

    images: Annotated[list[Image], Field(max_length=MAX_IMAGES, json_schema_extra={"x-kubernetes-list-type": "atomic"})]
    """Images in the order in which they are pulled."""
    node_names: Annotated[
        list[ObjectName] | None,
        Field(max_length=MAX_NODE_NAMES, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = None
    """Names of nodes, the most important first."""
    node_selector: LabelMap = Field(default_factory=dict)
    """Labels that a node must have."""
    node_selector_terms: Annotated[
        list[NodeSelectorTermFields], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Expressions on a node's labels; a node must meet one of the terms."""
    pod_selector: Selector = None
    """Nodes on which unfinished pods of this namespace with matching labels are, following them."""


class Attempts(ApiModel):
    """How long and how often a pull is tried."""

    timeout_seconds: Annotated[int | None, Field(strict=True, ge=10, le=86_400)] = None
    """Seconds after which a pull counts as failed. One that the kubelet has begun cannot be stopped: it is waited for
    as long again, at most a minute, and counts as what comes of it. Default: the controller's setting (600)."""
    limit: Annotated[int, Field(strict=True, ge=1, le=100)] = 5
    """Attempts for each pair of image and node in a row, with growing pauses; after that one attempt an hour and
    at each refresh, or none with completion Once."""


class CompletionFields(ApiModel):
    """Whether the work ends."""

    type: Annotated[CompletionType, Field()] = CompletionType.CONTINUOUS
    """Continuous keeps the nodes warm, new ones included. Once ends when every pair of image and node is
    there, was tried as often as attempts.limit says, or is skipped for half a minute; then nothing more is pulled, on
    new nodes neither, until the spec is edited, its schedule comes round or prewarm.dev/refresh is set."""
    active_deadline_seconds: Annotated[int | None, Field(strict=True, ge=1, le=31_536_000)] = None
    """Only with Once: seconds after which what is not done counts as failed, and the work ends."""
    ttl_seconds_after_finished: Annotated[int | None, Field(strict=True, ge=0, le=31_536_000)] = None
    """Only with Once: seconds after the end at which the ImageCache is deleted. Absent: it stays."""

    @model_validator(mode="after")
    def _ends(self) -> "CompletionFields":
        ends = self.active_deadline_seconds is not None or self.ttl_seconds_after_finished is not None
        if ends and self.type is not CompletionType.ONCE:
            raise ValueError(_ONLY_ONCE_ENDS)
        return self


_ONLY_ONCE_ENDS = "activeDeadlineSeconds and ttlSecondsAfterFinished need type Once"
_ENDS = cel(
    "(has(self.type) && self.type == 'Once') || "
    "(!has(self.activeDeadlineSeconds) && !has(self.ttlSecondsAfterFinished))",
    _ONLY_ONCE_ENDS,
)


_PARALLELISM = "write parallelism as a whole number from 1, or as a percentage from 1% to 100%"
_PERCENTAGE = re.compile(r"100%|[1-9][0-9]?%", re.ASCII)


def _parallelism(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    is_percentage = isinstance(value, str) and _PERCENTAGE.fullmatch(value) is not None
    if value is None or is_number or is_percentage:
        return value
    raise ValueError(_PARALLELISM)


_EXISTS_WITHOUT_VALUE = cel(
    "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
    "a toleration with operator Exists has no value",
)
_KEY_OR_EXISTS = cel(
    "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
    "a toleration without a key needs operator Exists",
)


_NO_SYSTEM_CLASS = "puller pods take no priority class of the system's: nodes would evict others for them"


def _priority_class(value: str) -> str:
    if value.startswith("system-"):
        raise ValueError(_NO_SYSTEM_CLASS)
    return value


class ImageCacheSpec(ApiModel):
    """Which images should be on which nodes, and how they are pulled."""

    cache_spec: Annotated[
        list[CacheEntry],
        Field(min_length=1, max_length=MAX_LISTS, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """Lists of images, each with its nodes."""
    image_pull_secrets: Annotated[
        list[LocalReference],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = Field(default_factory=list)
    """Secrets of this namespace with which the kubelets pull."""
    service_account_name: OptionalName = ""
    """ServiceAccount of the puller pods, for its pull secrets and for credential plugins. Default: `default`."""
    image_pull_policy: CachePullPolicy | None = None
    """IfNotPresent pulls what is missing; Always has every node ask the registry once, and again at every refresh,
    for tags that move. Default: the controller's setting (IfNotPresent)."""
    tolerations: Annotated[
        list[Annotated[TolerationFields, Field(json_schema_extra=rules(_EXISTS_WITHOUT_VALUE, _KEY_OR_EXISTS))]],
        Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = Field(default_factory=list)
    """Tolerations of the puller pods."""
    parallelism: Annotated[
        int | str | None,
        BeforeValidator(_parallelism),
        Field(
            json_schema_extra={
                "x-kubernetes-int-or-string": True,
                "minimum": 1,
                "maxLength": 4,
                **rules(cel("type(self) == int || self.matches('^(100|[1-9][0-9]?)%$')", _PARALLELISM)),
            }
        ),
    ] = None
    """Nodes that pull for this ImageCache at once: a number, or a percentage of its nodes (rounded up).
    Default: as many as the controller's budgets let."""
    attempts: Attempts = Field(default_factory=Attempts, json_schema_extra={"default": {}})
    """How long and how often a pull is tried."""
    completion: Annotated[CompletionFields, Field(json_schema_extra=rules(_ENDS))] = Field(
        default_factory=CompletionFields
    )
    """Whether the work ends."""
    refresh_interval: Duration | None = None
    """How often tags that may have moved (latest, none, or imagePullPolicy Always) are asked for again, failed pulls
    are tried anew and evidence that is in doubt is verified, such as 15m; 0s for never, else at least 10s. Each
    ImageCache has its own pace, up to a tenth faster or slower. With completion Once there is none. Default: none
    beside a schedule, else the controller's setting."""
    schedule: ScheduleFields | None = None
    """Times at which the ImageCache is refreshed."""
    hold: Duration | None = None
    """How long each image is kept from the kubelet's garbage collection after its pull, such as 8h, by the finished
    puller pod that used it. Only as many as the controller's limit allows are held in the whole cluster."""
    hold_present: Annotated[bool, Field(strict=True)] = False
    """With hold: an image that is on a node already is held, too, by a puller pod that uses it there; the time counts
    from then. Otherwise only what this ImageCache pulled is held."""
    deletion_policy: DeletionPolicyName = DeletionPolicyName.RETAIN
    """What becomes of images that this ImageCache pulled and does not ask for any more, or when it is deleted: Retain
    leaves them to the kubelet, Purge removes them where the operator has switched that on."""
    puller_form: PullerFormName | None = None
    """Container runs a static binary in the image. Volume mounts the image as a volume, for images whose container
    must not be started, where the node can. Default: as the PrewarmPolicy of the namespace says, else as the
    controller is set."""
    priority_class_name: Annotated[
        str,
        AfterValidator(_priority_class),
        Field(
            max_length=253,
            json_schema_extra=rules(cel("!self.startsWith('system-')", _NO_SYSTEM_CLASS)),
        ),
    ] = ""
    """PriorityClass of the puller pods, none of the system's. Default: the controller's setting."""
    suspend: Annotated[bool, Field(strict=True)] = False
    """Order no further pulls; those under way go on."""
    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000)] = 0
    """Among ImageCaches that compete for the controller's budgets, the higher one pulls first."""
    needed_by: Time | None = None
    """When the images are needed; at equal priority the earlier one pulls first. Nothing happens when it passes."""


class ImageCacheResource(ApiModel):
    """Images that nodes should have before pods need them."""

    spec: ImageCacheSpec
    """Which images should be on which nodes, and how they are pulled."""
    status: StatusFields | None = None
    """What was done. Written by the controller."""


def decode_image_cache(raw: Mapping[str, object]) -> ImageCache:
    """An ImageCache as the API server (or a file) holds it; never raises: `error` says what is wrong with the spec."""
    cache = _identified(decode_metadata(raw), decode_status(raw.get("status")))
    try:
        spec = ImageCacheSpec.model_validate(raw.get("spec"))
    except ValidationError as error:
        return replace(cache, error=explain(error))
    return replace(
        cache,
        lists=tuple(
            ImageList(
                images=tuple(entry.images),
                node_names=None if entry.node_names is None else tuple(entry.node_names),
                node_selector=tuple(sorted(entry.node_selector.items())),
                node_selector_terms=tuple(node_selector_term(term) for term in entry.node_selector_terms),
                pod_selector=label_selector(entry.pod_selector),
            )
            for entry in spec.cache_spec
        ),
        pull_secrets=tuple(secret.name for secret in spec.image_pull_secrets),
        service_account=spec.service_account_name,
        pull_policy=None if spec.image_pull_policy is None else PullPolicy(spec.image_pull_policy.value),
        tolerations=tuple(
            Toleration(key=t.key, operator=t.operator, value=t.value, effect=t.effect) for t in spec.tolerations
        ),
        parallelism=spec.parallelism,
        attempt_timeout_seconds=spec.attempts.timeout_seconds,
        attempt_limit=spec.attempts.limit,
        suspend=spec.suspend,
        priority=spec.priority,
        needed_by=unix(spec.needed_by),
        completion=_completion(spec.completion),
        refresh_seconds=seconds_of(spec.refresh_interval),
        schedule=None if spec.schedule is None else Schedule(spec.schedule.cron, spec.schedule.time_zone),
        hold_seconds=seconds_of(spec.hold),
        hold_present=spec.hold_present,
        deletion_policy=DeletionPolicy(spec.deletion_policy.value),
        puller_form=None if spec.puller_form is None else PullerForm(spec.puller_form.value),
        priority_class=spec.priority_class_name,
    )


def _completion(fields: CompletionFields) -> Completion:
    return Completion(
        once=fields.type is CompletionType.ONCE,
        deadline_seconds=fields.active_deadline_seconds,
        ttl_seconds=fields.ttl_seconds_after_finished,
    )


def _identified(metadata: Metadata, status: ImageCacheStatus) -> ImageCache:
    return ImageCache(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        generation=metadata.generation,
        created_at=metadata.created_at,
        deleted_at=metadata.deleted_at,
        owner=metadata.owner,
        planned=metadata.labels.get(names.LABEL_PLANNED) == names.TRUE,
        workload=metadata.annotation(names.ANNOTATION_WORKLOAD),
        plan_annotation=metadata.annotation(names.ANNOTATION_PLAN),
        refresh_request=metadata.request(names.ANNOTATION_REFRESH),
        purge_request=metadata.request(names.ANNOTATION_PURGE),
        pod_retention=_retention(metadata.annotation(names.ANNOTATION_KEEP_PODS)),
        status=status,
        resource_version=metadata.resource_version,
    )


def _retention(text: str) -> PodRetention | None:
    """What the annotation asks for; None for words that mean nothing."""
    try:
        return PodRetention(text)
    except ValueError:
        return None


def image_cache_manifest(cache: ImageCache) -> Manifest:
    """The object to apply: identity, owner and spec, without status. What has its default is left out."""
    metadata: dict[str, Json] = {"name": cache.name, "namespace": cache.namespace}
    if cache.planned:
        metadata["labels"] = {names.LABEL_PLANNED: names.TRUE, names.LABEL_MANAGED_BY: names.MANAGED_BY}
    annotations = {
        names.ANNOTATION_WORKLOAD: cache.workload or None,
        names.ANNOTATION_PLAN: cache.plan_annotation or None,
        names.ANNOTATION_REFRESH: cache.refresh_request,
        names.ANNOTATION_PURGE: cache.purge_request,
        names.ANNOTATION_KEEP_PODS: None if cache.pod_retention is None else cache.pod_retention.value,
    }
    written: dict[str, Json] = {name: value for name, value in annotations.items() if value is not None}
    if written:
        metadata["annotations"] = written
    if cache.owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": cache.owner.api_version,
                "kind": cache.owner.kind,
                "name": cache.owner.name,
                "uid": cache.owner.uid,
                "controller": False,
            }
        ]
    return {"apiVersion": names.API_VERSION, "kind": "ImageCache", "metadata": metadata, "spec": _spec(cache)}


def _spec(cache: ImageCache) -> dict[str, Json]:
    spec: dict[str, Json] = {"cacheSpec": [_entry(entry) for entry in cache.lists]}
    if cache.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cache.pull_secrets]
    if cache.service_account:
        spec["serviceAccountName"] = cache.service_account
    if cache.pull_policy is not None:
        spec["imagePullPolicy"] = cache.pull_policy.value
    if cache.tolerations:
        spec["tolerations"] = [_toleration(toleration) for toleration in cache.tolerations]
    if cache.parallelism is not None:
        spec["parallelism"] = cache.parallelism
    attempts: dict[str, Json] = {}
    if cache.attempt_timeout_seconds is not None:
        attempts["timeoutSeconds"] = cache.attempt_timeout_seconds
    if cache.attempt_limit != Attempts().limit:
        attempts["limit"] = cache.attempt_limit
    if attempts:
        spec["attempts"] = attempts
    if cache.suspend:
        spec["suspend"] = True
    if cache.priority:
        spec["priority"] = cache.priority
    if cache.needed_by is not None:
        spec["neededBy"] = api_time(cache.needed_by)
    return {**spec, **_life(cache)}


def _life(cache: ImageCache) -> dict[str, Json]:
    """When it is looked after, how long what it pulled stays, and in which form it pulls."""
    spec: dict[str, Json] = {}
    if cache.completion != Completion():
        spec["completion"] = _completion_manifest(cache.completion)
    if cache.refresh_seconds is not None:
        spec["refreshInterval"] = duration_text(cache.refresh_seconds)
    if cache.schedule is not None:
        spec["schedule"] = {"cron": cache.schedule.cron, "timeZone": cache.schedule.time_zone}
    if cache.hold_seconds is not None:
        spec["hold"] = duration_text(cache.hold_seconds)
    if cache.hold_present:
        spec["holdPresent"] = True
    if cache.deletion_policy is not DeletionPolicy.RETAIN:
        spec["deletionPolicy"] = cache.deletion_policy.value
    if cache.puller_form is not None:
        spec["pullerForm"] = cache.puller_form.value
    if cache.priority_class:
        spec["priorityClassName"] = cache.priority_class
    return spec


def _completion_manifest(completion: Completion) -> dict[str, Json]:
    fields: dict[str, Json] = {"type": "Once" if completion.once else "Continuous"}
    if completion.deadline_seconds is not None:
        fields["activeDeadlineSeconds"] = completion.deadline_seconds
    if completion.ttl_seconds is not None:
        fields["ttlSecondsAfterFinished"] = completion.ttl_seconds
    return fields


def _entry(entry: ImageList) -> dict[str, Json]:
    fields: dict[str, Json] = {"images": list(entry.images)}
    if entry.node_names is not None:
        fields["nodeNames"] = list(entry.node_names)
    if entry.node_selector:
        fields["nodeSelector"] = dict(entry.node_selector)
    if entry.node_selector_terms:
        fields["nodeSelectorTerms"] = [term_manifest(term) for term in entry.node_selector_terms]
    if entry.pod_selector is not None:
        fields["podSelector"] = selector_manifest(entry.pod_selector)
    return fields


def _toleration(toleration: Toleration) -> dict[str, Json]:
    fields = {
        "key": toleration.key,
        "operator": toleration.operator or "Equal",
        "value": toleration.value,
        "effect": toleration.effect,
    }
    return {name: value for name, value in fields.items() if value}
