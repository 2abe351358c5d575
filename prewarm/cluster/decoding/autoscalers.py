"""HorizontalPodAutoscalers."""

from collections.abc import Iterator

from msgspec import Struct, field

from prewarm.cluster.decoding.common import Scalar, WireMeta
from prewarm.cluster.decoding.problems import Report
from prewarm.model.progressive import workload_kind
from prewarm.model.quantities import milli
from prewarm.model.workloads import Autoscaler, WorkloadKey


class WireTargetReference(Struct, rename="camel", gc=False):
    """autoscaling/v2 CrossVersionObjectReference."""

    kind: str = ""
    name: str = ""
    api_version: str = ""


class WireValue(Struct, rename="camel", gc=False):
    """MetricTarget and MetricValueStatus."""

    average_utilization: int | None = None
    average_value: Scalar | None = None
    value: Scalar | None = None


class WireMetricName(Struct, gc=False):
    """MetricIdentifier."""

    name: str = ""


class WireSource(Struct, gc=False):
    """One source of a metric: in spec with `target`, in status with `current`."""

    name: str = ""
    container: str = ""
    metric: WireMetricName | None = None
    target: WireValue | None = None
    current: WireValue | None = None


class WireMetric(Struct, rename="camel", gc=False):
    """MetricSpec and MetricStatus: exactly one source is set."""

    type: str = ""
    resource: WireSource | None = None
    container_resource: WireSource | None = None
    pods: WireSource | None = None
    object: WireSource | None = None
    external: WireSource | None = None


class WireAutoscalerSpec(Struct, rename="camel", gc=False):
    """HorizontalPodAutoscalerSpec."""

    scale_target_ref: WireTargetReference = field(default_factory=WireTargetReference)
    min_replicas: int | None = None
    max_replicas: int = 1
    metrics: list[WireMetric] | None = None


class WireAutoscalerStatus(Struct, rename="camel", gc=False):
    """HorizontalPodAutoscalerStatus."""

    current_replicas: int = 0
    desired_replicas: int = 0
    current_metrics: list[WireMetric | None] | None = None


class WireAutoscaler(Struct, gc=False):
    """autoscaling/v2 HorizontalPodAutoscaler."""

    metadata: WireMeta
    spec: WireAutoscalerSpec = field(default_factory=WireAutoscalerSpec)
    status: WireAutoscalerStatus = field(default_factory=WireAutoscalerStatus)


def autoscaler(wire: WireAutoscaler, report: Report) -> Autoscaler:
    """An autoscaler with the largest ratio of a metric to its target."""
    meta, spec, status = wire.metadata, wire.spec, wire.status
    target = spec.scale_target_ref
    targets = {key: source.target for key, source in _sources(spec.metrics) if source.target}
    currents = {key: source.current for key, source in _sources(status.current_metrics) if source.current}
    ratios = [ratio for key in targets if key in currents and (ratio := _ratio(currents[key], targets[key], report))]
    return Autoscaler(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        target=WorkloadKey(workload_kind(target.api_version, target.kind), meta.namespace, target.name),
        min_replicas=1 if spec.min_replicas is None else spec.min_replicas,
        max_replicas=spec.max_replicas,
        current_replicas=status.current_replicas,
        desired_replicas=status.desired_replicas,
        utilization=max(ratios) if ratios else None,
        resource_version=meta.resource_version,
    )


def _sources(
    metrics: list[WireMetric] | list[WireMetric | None] | None,
) -> Iterator[tuple[tuple[str, ...], WireSource]]:
    for metric in metrics or ():
        if metric is None:
            continue
        for source in (metric.resource, metric.container_resource, metric.pods, metric.object, metric.external):
            if source is not None:
                yield (metric.type, source.name, source.container, source.metric.name if source.metric else ""), source


def _ratio(current: WireValue, target: WireValue, report: Report) -> float | None:
    """Current over target in the form in which the target is given."""
    if target.average_utilization is not None:
        if current.average_utilization is None or not target.average_utilization:
            return None
        return current.average_utilization / target.average_utilization
    for now, wanted in ((current.average_value, target.average_value), (current.value, target.value)):
        if now is not None and wanted is not None:
            try:
                return milli(str(now)) / milli(str(wanted))
            except (ValueError, ZeroDivisionError):
                report(f"metric value {now!r} of target {wanted!r} cannot be compared")
    return None
