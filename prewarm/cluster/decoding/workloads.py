"""Deployments, StatefulSets, DaemonSets and ReplicaSets."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from prewarm.cluster.decoding.common import (
    WireMeta,
    WireSelector,
    controlling_owner,
    kept_annotations,
    label_selector,
    shared_mapping,
    unix,
)
from prewarm.cluster.decoding.pod_spec import WireTemplate, pod_template
from prewarm.cluster.decoding.problems import Report
from prewarm.model.intents import Resource
from prewarm.model.pods import PodTemplate
from prewarm.model.selectors import LabelSelector
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey

_DEPLOYMENT_ANNOTATIONS = "deployment.kubernetes.io/"
_REVISION_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
_JOB_LABEL = "batch.kubernetes.io/controller-uid"
_JOB_LABELS = (_JOB_LABEL, "batch.kubernetes.io/job-name", "controller-uid", "job-name")
_HASH_BYTES = 10
_LONGEST_MESSAGE = 1024


class WireRollingUpdate(Struct, rename="camel", gc=False):
    """Of all kinds."""

    max_surge: int | str | None = None
    max_unavailable: int | str | None = None
    partition: int | None = None


class WireStrategy(Struct, rename="camel", gc=False):
    """spec.strategy and spec.updateStrategy."""

    type: str = ""
    rolling_update: WireRollingUpdate | None = None


class WireOrdinals(Struct, rename="camel", gc=False):
    """spec.ordinals of a StatefulSet."""

    start: int = 0


class WireClaimTemplate(Struct, gc=False):
    """spec.volumeClaimTemplates[] of a StatefulSet."""

    metadata: WireMeta = field(default_factory=WireMeta)


class WireWorkloadSpec(Struct, rename="camel", gc=False):
    """Spec of all four kinds."""

    template: msgspec.Raw = field(default_factory=msgspec.Raw)
    replicas: int | None = None
    selector: WireSelector | None = None
    strategy: WireStrategy | None = None
    update_strategy: WireStrategy | None = None
    min_ready_seconds: int = 0
    paused: bool = False
    ordinals: WireOrdinals | None = None
    pod_management_policy: str = ""
    volume_claim_templates: list[WireClaimTemplate] | None = None


class WireWorkloadCondition(Struct, gc=False):
    """Condition of any of the four kinds."""

    type: str = ""
    status: str = ""
    message: str = ""


class WireWorkloadStatus(Struct, rename="camel", gc=False):
    """Status of all four kinds; DaemonSets have names of their own."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    update_revision: str = ""
    conditions: list[WireWorkloadCondition] | None = None
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0


class WireWorkload(Struct, gc=False):
    """apps/v1 kinds with a pod template."""

    metadata: WireMeta
    spec: WireWorkloadSpec = field(default_factory=WireWorkloadSpec)
    status: WireWorkloadStatus = field(default_factory=WireWorkloadStatus)


class _Defaults(Struct, frozen=True):
    """What the API server fills in where spec.strategy says nothing (pkg/apis/apps/v1/defaults.go)."""

    max_surge: int | str
    max_unavailable: int | str


_DEFAULTS = {
    "Deployment": _Defaults("25%", "25%"),
    "StatefulSet": _Defaults(0, 1),
    "DaemonSet": _Defaults(0, 1),
    "ReplicaSet": _Defaults(0, 0),
}
_TEMPLATE = msgspec.json.Decoder(WireTemplate)


def workload_converter(resource: Resource) -> Callable[[WireWorkload, Report], Workload]:
    """The conversion for one of the four kinds, which a list's items do not name."""

    def convert(wire: WireWorkload, report: Report) -> Workload:
        return _workload(resource, wire, report)

    return convert


def template_hash(raw: bytes | msgspec.Raw) -> str:
    """Hash of a pod template that is equal for a workload and its ReplicaSet.

    The Deployment's controller adds a label to the ReplicaSet's template (deployment_util.EqualIgnoreHash), and so does
    that of an Argo Rollout; the API server adds some to the template of a Job.

    Raises:
        msgspec.DecodeError: if the text is not JSON.
    """
    template: object = msgspec.json.decode(raw)
    if isinstance(template, dict) and isinstance(metadata := template.get("metadata"), dict):
        metadata.pop("creationTimestamp", None)
        if isinstance(labels := metadata.get("labels"), dict):
            for label in (*_REVISION_LABELS, *(_JOB_LABELS if _JOB_LABEL in labels else ())):
                labels.pop(label, None)
            if not labels:
                del metadata["labels"]
        if not metadata:
            del template["metadata"]
    return blake2b(msgspec.json.encode(template, order="sorted"), digest_size=_HASH_BYTES).hexdigest()


def _workload(resource: Resource, wire: WireWorkload, report: Report) -> Workload:
    meta, spec, status = wire.metadata, wire.spec, wire.status
    strategy = spec.strategy or spec.update_strategy or WireStrategy()
    rolling = strategy.rolling_update or WireRollingUpdate()
    defaults = _DEFAULTS[resource.kind]
    template, hashed = decoded_template(spec.template, report)
    per_node = resource.kind == "DaemonSet"
    base = workload_of(resource.kind, meta, template, hashed, label_selector(spec.selector, report))
    return replace(
        common_status(base, status, per_node=per_node),
        replicas=status.desired_number_scheduled if per_node else (1 if spec.replicas is None else spec.replicas),
        strategy=update_strategy(strategy.type, report),
        max_surge=defaults.max_surge if rolling.max_surge is None else rolling.max_surge,
        max_unavailable=defaults.max_unavailable if rolling.max_unavailable is None else rolling.max_unavailable,
        partition=rolling.partition or 0,
        first_ordinal=0 if spec.ordinals is None else max(0, spec.ordinals.start),
        parallel=spec.pod_management_policy == "Parallel",
        claim_templates=tuple(claim.metadata.name for claim in spec.volume_claim_templates or ()),
        update_revision=status.update_revision,
        min_ready_seconds=spec.min_ready_seconds,
        paused=spec.paused,
        api_version=resource.api_version,
    )


def workload_of(
    kind: str, meta: WireMeta, template: PodTemplate, hashed: str, selector: LabelSelector | None
) -> Workload:
    """What the metadata and template of a workload of any kind say."""
    return Workload(
        key=WorkloadKey(kind, meta.namespace, meta.name),
        uid=meta.uid,
        generation=meta.generation,
        labels=shared_mapping(meta.labels),
        annotations=kept_annotations(meta.annotations, _DEPLOYMENT_ANNOTATIONS),
        owner=controlling_owner(meta),
        template=template,
        template_hash=hashed,
        selector=selector,
        created_at=unix(meta.creation_timestamp) or 0.0,
        deleted_at=unix(meta.deletion_timestamp),
        resource_version=meta.resource_version,
    )


def common_status(workload: Workload, status: WireWorkloadStatus, *, per_node: bool) -> Workload:
    """The workload with the counts of its status."""
    return replace(
        workload,
        observed_generation=status.observed_generation,
        status_replicas=status.current_number_scheduled if per_node else status.replicas,
        updated_replicas=status.updated_number_scheduled if per_node else status.updated_replicas,
        ready_replicas=status.number_ready if per_node else status.ready_replicas,
        available_replicas=status.number_available if per_node else status.available_replicas,
        replica_failure=_replica_failure(status.conditions or ()),
    )


def decoded_template(raw: msgspec.Raw, report: Report) -> tuple[PodTemplate, str]:
    """A pod template and its hash; the empty one if it cannot be understood."""
    if not bytes(raw):
        return PodTemplate(), ""
    hashed = template_hash(raw)
    try:
        return pod_template(_TEMPLATE.decode(raw), report), hashed
    except msgspec.ValidationError as error:
        report(f"spec.template: {error}")
        return PodTemplate(), hashed


def _replica_failure(conditions: Sequence[WireWorkloadCondition]) -> str:
    for condition in conditions:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            return condition.message[:_LONGEST_MESSAGE] or "ReplicaFailure"
    return ""


def update_strategy(text: str, report: Report) -> UpdateStrategy:
    """spec.updateStrategy.type; an unknown one is reported and taken for RollingUpdate."""
    try:
        return UpdateStrategy(text) if text else UpdateStrategy.ROLLING_UPDATE
    except ValueError:
        report(f"update strategy {text!r} is unknown")
        return UpdateStrategy.ROLLING_UPDATE
