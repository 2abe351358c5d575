"""PrewarmPolicy: which workloads are covered, and how far prewarming goes for them."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from prewarm.api import names
from prewarm.api.errors import explain
from prewarm.api.fields import HEADROOM_PATTERN, ApiModel
from prewarm.api.metadata import decode_metadata
from prewarm.api.selectors import Selector, label_selector, selector_manifest
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.intents import Json, Manifest

_DEFAULTS = Policy()


class RolloutFields(ApiModel):
    """Prewarming ahead of the batches of a rollout."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """Pull new images ahead of the pods that a rollout has still to create."""


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
        scale_out=spec.scale_out.enabled,
        headroom_percent=int(spec.scale_out.headroom.removesuffix("%")),
        coverage=spec.placement.coverage,
        max_overprovision=spec.placement.max_overprovision,
        resource_version=metadata.resource_version,
    )


def policy_manifest(policy: Policy) -> Manifest:
    """The object to apply, every field spelt out."""
    spec: dict[str, Json] = {
        "mode": policy.mode.value,
        "rollout": {"enabled": policy.rollout},
        "scaleOut": {"enabled": policy.scale_out, "headroom": f"{policy.headroom_percent}%"},
        "placement": {"coverage": policy.coverage, "maxOverprovision": policy.max_overprovision},
    }
    if policy.namespace_selector is not None:
        spec["namespaceSelector"] = selector_manifest(policy.namespace_selector)
    if policy.workload_selector is not None:
        spec["workloadSelector"] = selector_manifest(policy.workload_selector)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "PrewarmPolicy",
        "metadata": {"name": policy.name},
        "spec": spec,
    }
