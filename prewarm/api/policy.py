"""PrewarmPolicy: which workloads are covered, and how far prewarming goes for them."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from prewarm.api import names
from prewarm.api.errors import explain
from prewarm.api.fields import (
    DURATION_PATTERN,
    DURATION_WORDS,
    HEADROOM_PATTERN,
    ApiModel,
    Duration,
    LabelKey,
    LabelMap,
    cel,
    cel_text,
    duration_text,
    rules,
    seconds_of,
)
from prewarm.api.metadata import decode_metadata
from prewarm.api.selectors import Selector, SelectorFields, label_selector, selector_manifest
from prewarm.model.image_caches import Canaries, Limits, Policy, PolicyMode, PullerForm
from prewarm.model.intents import Json, Manifest
from prewarm.model.quantities import whole
from prewarm.model.steering import Steer

_DEFAULTS = Policy()


_READY_PODS = "write minUpdatedReadyPods as a whole number from 0, or as a percentage from 0% to 100%"


def _ready_pods(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    is_percentage = isinstance(value, str) and re.fullmatch(r"(100|[1-9]?[0-9])%", value, re.ASCII) is not None
    if is_number or is_percentage:
        return value
    raise ValueError(_READY_PODS)


_GATE = "write a duration up to 1h, such as 10m"
_LONGEST_GATE_SECONDS = 3600.0


def _gate(value: str) -> str:
    if (seconds_of(value) or 0.0) > _LONGEST_GATE_SECONDS:
        raise ValueError(_GATE)
    return value


class RolloutFields(ApiModel):
    """Prewarming ahead of the batches of a rollout."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """Pull new images ahead of the pods that a rollout has still to create."""
    min_updated_ready_pods: Annotated[
        int | str,
        BeforeValidator(_ready_pods),
        Field(
            json_schema_extra={
                "x-kubernetes-int-or-string": True,
                "minimum": 0,
                "maxLength": 4,
                **rules(cel("type(self) == int || self.matches('^(100|[1-9]?[0-9])%$')", _READY_PODS)),
            }
        ),
    ] = 0
    """Pods of the new revision, as a number or a percentage of all (rounded up), that have to be ready before its
    images spread: a rollout that never becomes healthy then costs no pulls. Announced images are not held back."""
    gate: (
        Annotated[
            Duration,
            AfterValidator(_gate),
            Field(
                json_schema_extra=rules(
                    cel(f"self.matches('{DURATION_PATTERN}')", DURATION_WORDS),
                    cel("duration(self) <= duration('1h')", _GATE),
                )
            ),
        ]
        | None
    ) = None
    """Hold changes of images of Deployments and StatefulSets until the images are on the nodes, for at most this long,
    such as 10m, up to 1h, where the operator has switched the gate on. The annotation prewarm.dev/gate of a workload
    goes first. Absent or 0s: not."""


class ScaleOutFields(ApiModel):
    """Prewarming ahead of an autoscaler's next step."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """Keep nodes warm for replicas that a HorizontalPodAutoscaler may add."""
    headroom: Annotated[
        str,
        Field(
            max_length=5,
            pattern=HEADROOM_PATTERN,
        ),
    ] = f"{_DEFAULTS.headroom_percent}%"
    """Replicas beyond the current ones for which nodes are kept warm, in percent from 0% to 1000%, rounded up."""


class PlacementFields(ApiModel):
    """How many nodes are made warm."""

    coverage: Annotated[float, Field(ge=0, le=1)] = _DEFAULTS.coverage
    """Share of the predicted landings whose nodes should be warm, 0 to 1."""
    max_overprovision: Annotated[float, Field(ge=1, le=100)] = _DEFAULTS.max_overprovision
    """Nodes to make warm at most, as a multiple of the pods that are still to come, from 1."""
    max_waste: Annotated[float, Field(ge=0, le=1)] = _DEFAULTS.max_waste
    """Share of the pulls for a new revision that may be expected to be in vain, 0 to 1; of few pulls one may. Where it
    is well known which nodes the pods take (a predictability of 0.9 and more), it is a quarter more, and two of few.
    Beyond it fewer nodes are made warm; 1 warms them all the same, up to maxOverprovision. Where it is less well known,
    and the gate holds the rollout, it is twice as much, and bounds only nodes that neither the first batch takes nor
    have room for a pod now."""
    steer: Steer = _DEFAULTS.steer
    """Prefer: new pods prefer the nodes that are warm for them, weakly (a preferred node affinity of weight 1), and no
    more nodes are made warm than they need. Takes effect where the controller is set to steer (steer.enabled of the
    chart). Off: they land where the scheduler puts them by itself."""


_BYTES = "write bytes as a quantity, such as 500Gi or 2T"
_BYTES_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,3})?([kMGTPE]|[KMGTPE]i)?$"
_REGISTRY = "write a registry or a repository below it, such as docker.io or registry.example:5000/team"
REGISTRY_PATTERN = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$"


def _bytes(value: str) -> str:
    if re.fullmatch(_BYTES_PATTERN, value, re.ASCII) is None:
        raise ValueError(_BYTES)
    return value


def _registry(value: str) -> str:
    if re.fullmatch(REGISTRY_PATTERN, value, re.ASCII) is None:
        raise ValueError(_REGISTRY)
    return value


class LimitsFields(ApiModel):
    """What the ImageCaches of one namespace may have together, planned and hand-written ones alike."""

    images: Annotated[int | None, Field(strict=True, ge=0, le=100_000)] = None
    """Different images."""
    nodes: Annotated[int | None, Field(strict=True, ge=0, le=100_000)] = None
    """Nodes that have images for the namespace."""
    bytes: Annotated[
        Annotated[str, AfterValidator(_bytes)] | None,
        Field(max_length=20, json_schema_extra=rules(cel(f"self.matches('{cel_text(_BYTES_PATTERN)}')", _BYTES))),
    ] = None
    """Sum over pairs of image and node, such as 500Gi. An image of which nothing is known counts after its first
    pull."""
    priority: Annotated[int | None, Field(strict=True, ge=-1000, le=1000)] = None
    """The highest priority that counts: a higher spec.priority counts as this one."""
    holds: Annotated[int | None, Field(strict=True, ge=0, le=100_000)] = None
    """Finished puller pods that hold images from garbage collection at a time; beyond that nothing is held."""
    registries: Annotated[
        list[
            Annotated[
                str,
                AfterValidator(_registry),
                Field(
                    max_length=255,
                    json_schema_extra=rules(cel(f"self.matches('{cel_text(REGISTRY_PATTERN)}')", _REGISTRY)),
                ),
            ]
        ]
        | None,
        Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = None
    """Registries, or repositories below them, that images may come from, such as docker.io or registry.example/team.
    Absent: any. Empty: none."""
    node_selector: LabelMap = Field(default_factory=dict)
    """Labels that a node must have."""


class CanaryFields(ApiModel):
    """Canaries that are Deployments of their own, beside the stable one."""

    selector: Annotated[SelectorFields, Field(json_schema_extra={"x-kubernetes-map-type": "atomic"})]
    """Deployments with matching labels, their own or their pods', are canaries, such as track: canary."""
    shared_label: LabelKey
    """Label that a canary and the Deployment that it is on trial for have with the same value, such as app."""


class PolicySpec(ApiModel):
    """Which workloads are covered, and how far prewarming goes for them."""

    namespace_selector: Selector = None
    """Workloads in matching namespaces are covered without an annotation. Absent: only workloads that opt in."""
    workload_selector: Selector = None
    """Among the workloads of those namespaces, only the ones with matching labels."""
    mode: PolicyMode = _DEFAULTS.mode
    """Active acts. Shadow plans and accounts, and pulls nothing. Off does nothing."""
    rollout: RolloutFields = Field(default_factory=RolloutFields, json_schema_extra={"default": {}})
    """Prewarming ahead of the batches of a rollout."""
    scale_out: ScaleOutFields = Field(default_factory=ScaleOutFields, json_schema_extra={"default": {}})
    """Prewarming ahead of an autoscaler's next step."""
    placement: PlacementFields = Field(default_factory=PlacementFields, json_schema_extra={"default": {}})
    """How many nodes are made warm."""
    hold: Duration | None = None
    """How long images that were pulled for a workload are kept from the kubelet's garbage collection at most, such as
    2h: by the finished puller pods that used them, until what they were pulled for is over. Absent or 0s: not. Only as
    many as the controller's limit and limits.holds allow are held."""
    canary: CanaryFields | None = None
    """Canaries that are Deployments of their own. Nodes are warmed with a canary's images for the Deployments that it
    is on trial for, once it has proved healthy: as many of its pods are ready as rollout.minUpdatedReadyPods asks for,
    all of them if it says nothing."""
    puller_form: PullerForm | None = None
    """How the ImageCaches of each matching namespace pull that say nothing of it themselves, whatever the mode.
    Container runs a static binary in the image; Volume mounts the image, where the node can. Of several policies that
    say it and whose namespaceSelector matches, the first by name counts; where none matches, the policy `default`.
    Absent: as the controller is set (PREWARM_PULLER_FORM)."""
    limits: LimitsFields | None = None
    """What the ImageCaches of each matching namespace may have, whatever the mode. Of several policies with limits
    whose namespaceSelector matches, the first by name counts; where none matches, those of the policy `default`."""


class PolicyResource(ApiModel):
    """Which workloads are prewarmed, and how far. The one named `default` applies where a workload names none."""

    spec: PolicySpec
    """Which workloads are covered, and how far prewarming goes for them."""


def decode_policy(raw: Mapping[str, object]) -> Policy:
    """A PrewarmPolicy object; never raises: an unreadable one is Off, and `error` says what is wrong with it."""
    metadata = decode_metadata(raw)
    try:
        spec = PolicySpec.model_validate(raw.get("spec"))
    except ValidationError as error:
        return Policy(
            name=metadata.name,
            mode=PolicyMode.OFF,
            resource_version=metadata.resource_version,
            error=explain(error),
        )
    return Policy(
        name=metadata.name,
        mode=spec.mode,
        namespace_selector=label_selector(spec.namespace_selector),
        workload_selector=label_selector(spec.workload_selector),
        rollout=spec.rollout.enabled,
        min_updated_ready_pods=spec.rollout.min_updated_ready_pods,
        gate_seconds=seconds_of(spec.rollout.gate),
        scale_out=spec.scale_out.enabled,
        headroom_percent=int(spec.scale_out.headroom.removesuffix("%")),
        coverage=spec.placement.coverage,
        max_overprovision=spec.placement.max_overprovision,
        max_waste=spec.placement.max_waste,
        steer=spec.placement.steer,
        hold_seconds=seconds_of(spec.hold),
        canaries=_canaries(spec.canary),
        puller_form=spec.puller_form,
        limits=_limits(spec.limits),
        resource_version=metadata.resource_version,
    )


def _canaries(fields: CanaryFields | None) -> Canaries | None:
    selector = None if fields is None else label_selector(fields.selector)
    return None if fields is None or selector is None else Canaries(selector, fields.shared_label)


def _limits(fields: LimitsFields | None) -> Limits | None:
    if fields is None:
        return None
    return Limits(
        images=fields.images,
        nodes=fields.nodes,
        bytes=None if fields.bytes is None else whole(fields.bytes),
        priority=fields.priority,
        holds=fields.holds,
        registries=None if fields.registries is None else tuple(fields.registries),
        node_selector=tuple(sorted(fields.node_selector.items())),
    )


def _limits_manifest(limits: Limits) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "images": limits.images,
        "nodes": limits.nodes,
        "bytes": None if limits.bytes is None else str(limits.bytes),
        "priority": limits.priority,
        "holds": limits.holds,
        "registries": None if limits.registries is None else list(limits.registries),
        "nodeSelector": dict(limits.node_selector) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _rollout_manifest(policy: Policy) -> dict[str, Json]:
    fields: dict[str, Json] = {"enabled": policy.rollout, "minUpdatedReadyPods": policy.min_updated_ready_pods}
    if policy.gate_seconds is not None:
        fields["gate"] = duration_text(policy.gate_seconds)
    return fields


def policy_manifest(policy: Policy) -> Manifest:
    """The object to apply, every field spelt out."""
    spec: dict[str, Json] = {
        "mode": policy.mode.value,
        "rollout": _rollout_manifest(policy),
        "scaleOut": {"enabled": policy.scale_out, "headroom": f"{policy.headroom_percent}%"},
        "placement": {
            "coverage": policy.coverage,
            "maxOverprovision": policy.max_overprovision,
            "maxWaste": policy.max_waste,
            "steer": policy.steer.value,
        },
    }
    if policy.namespace_selector is not None:
        spec["namespaceSelector"] = selector_manifest(policy.namespace_selector)
    if policy.workload_selector is not None:
        spec["workloadSelector"] = selector_manifest(policy.workload_selector)
    if policy.hold_seconds is not None:
        spec["hold"] = duration_text(policy.hold_seconds)
    if policy.canaries is not None:
        selector = selector_manifest(policy.canaries.selector)
        spec["canary"] = {"selector": selector, "sharedLabel": policy.canaries.shared_label}
    if policy.puller_form is not None:
        spec["pullerForm"] = policy.puller_form.value
    if policy.limits is not None:
        spec["limits"] = _limits_manifest(policy.limits)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "PrewarmPolicy",
        "metadata": {"name": policy.name},
        "spec": spec,
    }
