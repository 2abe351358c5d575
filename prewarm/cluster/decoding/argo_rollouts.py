"""Rollouts of Argo: strategy, steps, and how far they are."""

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from prewarm.cluster.decoding.common import WireMeta, WireSelector, go_seconds, label_selector, unix
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.workloads import decoded_template, workload_of
from prewarm.model.intents import ROLLOUTS
from prewarm.model.progressive import CanaryStep, Rollout
from prewarm.model.workloads import Workload

MAX_STEPS = 256
"""Steps of a canary that are looked at."""
_DOUBTFUL = frozenset({"Failed", "Error", "Inconclusive"})


class WirePause(Struct, gc=False):
    """pause of a step; without a duration it lasts until a person goes on."""

    duration: int | str | None = None


class WireScale(Struct, rename="camel", gc=False):
    """setCanaryScale of a step."""

    replicas: int | None = None
    weight: int | None = None
    match_traffic_weight: bool = False


class WireStep(Struct, rename="camel", gc=False):
    """spec.strategy.canary.steps[]."""

    set_weight: int | None = None
    pause: WirePause | None = None
    set_canary_scale: WireScale | None = None
    experiment: msgspec.Raw = field(default_factory=msgspec.Raw)
    analysis: msgspec.Raw = field(default_factory=msgspec.Raw)
    plugin: msgspec.Raw = field(default_factory=msgspec.Raw)


class WireCanary(Struct, rename="camel", gc=False):
    """spec.strategy.canary."""

    steps: list[WireStep] | None = None
    traffic_routing: msgspec.Raw = field(default_factory=msgspec.Raw)
    max_surge: int | str | None = None
    max_unavailable: int | str | None = None
    dynamic_stable_scale: bool = False


class WireBlueGreen(Struct, rename="camel", gc=False):
    """spec.strategy.blueGreen."""

    preview_replica_count: int | None = None
    auto_promotion_enabled: bool | None = None
    auto_promotion_seconds: int = 0


class WireRolloutStrategy(Struct, rename="camel", gc=False):
    """spec.strategy."""

    canary: WireCanary | None = None
    blue_green: WireBlueGreen | None = None


class WireReference(Struct, rename="camel", gc=False):
    """spec.workloadRef."""

    kind: str = ""
    name: str = ""


class WireRolloutSpec(Struct, rename="camel", gc=False):
    """Spec of a Rollout."""

    template: msgspec.Raw = field(default_factory=msgspec.Raw)
    replicas: int | None = None
    selector: WireSelector | None = None
    workload_ref: WireReference | None = None
    strategy: WireRolloutStrategy | None = None
    min_ready_seconds: int = 0
    paused: bool = False


class WireAnalysis(Struct, gc=False):
    """Status of an AnalysisRun."""

    status: str = ""


class WireCanaryState(Struct, rename="camel", gc=False):
    """status.canary."""

    current_step_analysis_run_status: WireAnalysis | None = None
    current_background_analysis_run_status: WireAnalysis | None = None


class WireBlueGreenState(Struct, rename="camel", gc=False):
    """status.blueGreen."""

    pre_promotion_analysis_run_status: WireAnalysis | None = None


class WirePauseCondition(Struct, rename="camel", gc=False):
    """Why a Rollout is paused, and since when."""

    start_time: str | None = None


class WireRolloutStatus(Struct, rename="camel", gc=False):
    """Status of a Rollout; its observedGeneration is text."""

    observed_generation: str | int = ""
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    current_pod_hash: str = ""
    stable_rs: str = field(default="", name="stableRS")
    current_step_index: int | None = None
    pause_conditions: list[WirePauseCondition] | None = None
    abort: bool = False
    promote_full: bool = False
    canary: WireCanaryState | None = None
    blue_green: WireBlueGreenState | None = None


class WireRollout(Struct, rename="camel", gc=False):
    """argoproj.io Rollout."""

    metadata: WireMeta
    spec: WireRolloutSpec = field(default_factory=WireRolloutSpec)
    status: WireRolloutStatus = field(default_factory=WireRolloutStatus)


def rollout(wire: WireRollout, report: Report) -> Workload:
    """A Rollout as a workload; with a workloadRef its template is empty here, and taken from the Deployment later."""
    meta, spec, status = wire.metadata, wire.spec, wire.status
    strategy = spec.strategy or WireRolloutStrategy()
    canary = strategy.canary or WireCanary()
    template, hashed = decoded_template(spec.template, report)
    base = workload_of("Rollout", meta, template, hashed, label_selector(spec.selector, report))
    return replace(
        base,
        api_version=ROLLOUTS.api_version,
        observed_generation=_generation(status.observed_generation),
        replicas=1 if spec.replicas is None else spec.replicas,
        max_surge="25%" if canary.max_surge is None else canary.max_surge,
        max_unavailable="25%" if canary.max_unavailable is None else canary.max_unavailable,
        min_ready_seconds=spec.min_ready_seconds,
        paused=spec.paused,
        status_replicas=status.replicas,
        updated_replicas=status.updated_replicas,
        ready_replicas=status.ready_replicas,
        available_replicas=status.available_replicas,
        rollout=_rollout(spec, strategy, canary, status, report),
    )


def _rollout(
    spec: WireRolloutSpec, strategy: WireRolloutStrategy, canary: WireCanary, status: WireRolloutStatus, report: Report
) -> Rollout:
    blue_green = strategy.blue_green
    steps = tuple(_step(step, report) for step in (canary.steps or ())[:MAX_STEPS])
    reference = spec.workload_ref
    if reference is not None and reference.kind not in {"", "Deployment"}:
        report(f"workloadRef to a {reference.kind} is not followed")
        reference = None
    return Rollout(
        blue_green=blue_green is not None,
        routed=_is_set(canary.traffic_routing),
        shrinks_stable=canary.dynamic_stable_scale,
        steps=steps,
        step=min(max(0, status.current_step_index or 0), len(steps)),
        paused_at=_paused_at(status),
        preview_replicas=None if blue_green is None else blue_green.preview_replica_count,
        promotion_seconds=None if blue_green is None else _promotion(blue_green),
        stable_hash=status.stable_rs,
        current_hash=status.current_pod_hash,
        aborted=status.abort,
        promoted=status.promote_full,
        doubted=any(run is not None and run.status in _DOUBTFUL for run in _runs(status)),
        workload_ref="" if reference is None else reference.name,
    )


def _paused_at(status: WireRolloutStatus) -> float | None:
    """The latest start, if several things pause it: each goes on for its own time."""
    starts = (unix(condition.start_time) for condition in status.pause_conditions or ())
    return max((at for at in starts if at is not None), default=None)


def _is_set(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in {b"", b"null"}


def _runs(status: WireRolloutStatus) -> tuple[WireAnalysis | None, ...]:
    canary, blue_green = status.canary or WireCanaryState(), status.blue_green or WireBlueGreenState()
    return (
        canary.current_step_analysis_run_status,
        canary.current_background_analysis_run_status,
        blue_green.pre_promotion_analysis_run_status,
    )


def _promotion(blue_green: WireBlueGreen) -> float | None:
    """Seconds until it promotes itself; autoPromotionSeconds count even where automatic promotion is off."""
    if blue_green.auto_promotion_seconds > 0:
        return float(blue_green.auto_promotion_seconds)
    return None if blue_green.auto_promotion_enabled is False else 0.0


def _step(wire: WireStep, report: Report) -> CanaryStep:
    scale = wire.set_canary_scale or WireScale()
    pause = None if wire.pause is None else _seconds(wire.pause.duration, report)
    open_end = wire.pause is not None and pause is None
    return CanaryStep(
        weight=None if wire.set_weight is None else min(100, max(0, wire.set_weight)),
        scale_replicas=None if scale.replicas is None else max(0, scale.replicas),
        scale_weight=None if scale.weight is None else min(100, max(0, scale.weight)),
        match_traffic=scale.match_traffic_weight,
        pause_seconds=pause,
        waits=open_end or any(map(_is_set, (wire.experiment, wire.analysis, wire.plugin))),
    )


def _seconds(value: int | str | None, report: Report) -> float | None:
    """A number of seconds, or a Go duration (RolloutPause.DurationSeconds); None if it has no end."""
    if value is None:
        return None
    text = str(value)
    seconds = go_seconds(f"{text}s" if text.isdecimal() and text.isascii() else text)
    if seconds is None:
        report(f"pause of {text[:32]!r} is no duration such as 30s or 1m")
    return seconds


def _generation(value: str | int) -> int:
    text = str(value)
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else 0
