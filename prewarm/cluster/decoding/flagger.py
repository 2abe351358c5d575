"""Canaries of Flagger: what they are about, and how far they are."""

from msgspec import Struct, field
from msgspec.structs import replace

from prewarm.cluster.decoding.common import WireMeta, go_seconds
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.workloads import workload_of
from prewarm.model.intents import CANARIES
from prewarm.model.pods import PodTemplate
from prewarm.model.progressive import Flagger, FlaggerPhase
from prewarm.model.workloads import Workload

DEFAULT_INTERVAL = 60.0
"""Seconds between two checks where the Canary says nothing (AnalysisInterval in Flagger's canary.go)."""
_MAX_CHECKS = 10_000


class WireTarget(Struct, gc=False):
    """spec.targetRef."""

    kind: str = ""
    name: str = ""


class WireAnalysis(Struct, rename="camel", gc=False):
    """spec.analysis."""

    interval: str = ""
    iterations: int = 0
    max_weight: int = 0
    step_weight: int = 0
    step_weights: list[int] | None = None


class WireCanarySpec(Struct, rename="camel", gc=False):
    """Spec of a Canary."""

    target_ref: WireTarget = field(default_factory=WireTarget)
    analysis: WireAnalysis | None = None


class WireCanaryStatus(Struct, rename="camel", gc=False):
    """Status of a Canary."""

    phase: str = ""
    failed_checks: int = 0
    canary_weight: int = 0
    iterations: int = 0


class WireFlagger(Struct, gc=False):
    """flagger.app Canary."""

    metadata: WireMeta
    spec: WireCanarySpec = field(default_factory=WireCanarySpec)
    status: WireCanaryStatus = field(default_factory=WireCanaryStatus)


def canary(wire: WireFlagger, report: Report) -> Workload:
    """A Canary as a workload without pods of its own."""
    spec, status = wire.spec, wire.status
    analysis = spec.analysis or WireAnalysis()
    base = workload_of("Canary", wire.metadata, PodTemplate(), "", None)
    return replace(
        base,
        api_version=CANARIES.api_version,
        replicas=0,
        flagger=Flagger(
            target_kind=spec.target_ref.kind,
            target_name=spec.target_ref.name,
            phase=_phase(status.phase, report),
            interval_seconds=_seconds(analysis.interval, report),
            checks_left=_checks_left(analysis, status),
            checks_passed=status.canary_weight > 0 or status.iterations > 0,
            checks_failed=max(0, status.failed_checks),
        ),
    )


def _checks_left(analysis: WireAnalysis, status: WireCanaryStatus) -> int:
    """Iterations, or increases of the weight, until the analysis ends."""
    if analysis.iterations > 0:
        left = analysis.iterations - status.iterations
    elif analysis.step_weights:
        left = sum(weight > status.canary_weight for weight in analysis.step_weights)
    elif analysis.step_weight > 0:
        most = analysis.max_weight or 100
        left = -(-(most - status.canary_weight) // analysis.step_weight)
    else:
        left = 0
    return min(_MAX_CHECKS, max(0, left))


def _phase(text: str, report: Report) -> FlaggerPhase:
    try:
        return FlaggerPhase(text) if text else FlaggerPhase.INITIALIZING
    except ValueError:
        report(f"phase {text[:32]!r} is unknown")
        return FlaggerPhase.INITIALIZING


def _seconds(text: str, report: Report) -> float:
    if not text:
        return DEFAULT_INTERVAL
    seconds = go_seconds(text)
    if seconds is None:
        report(f"analysis.interval {text[:32]!r} is no duration such as 30s or 1m")
        return DEFAULT_INTERVAL
    return seconds
