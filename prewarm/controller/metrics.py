"""The controller's metrics: base units, closed label sets, never an image, pod, digest or node as a label."""

from collections.abc import Iterable
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from prewarm.accounting.waste import ByteUse, ByteVerdict
from prewarm.cluster.mirror import Mirror
from prewarm.delivery import GateReason
from prewarm.model.outcomes import ContainerStart, Outcome

CONTAINER_STARTS = "prewarm_container_starts_total"
LEAD_SECONDS = "prewarm_lead_seconds"
SAVED_SECONDS = "prewarm_saved_seconds_total"
PULLED_BYTES = "prewarm_pulled_bytes_total"
USED_BYTES = "prewarm_used_bytes_total"
WASTED_BYTES = "prewarm_wasted_bytes_total"
PREDICTED_NODES = "prewarm_predicted_nodes_total"
PULLS_IN_FLIGHT = "prewarm_pulls_in_flight"
PULLS = "prewarm_pulls_total"
PLANNING_DURATION = "prewarm_planning_duration_seconds"
CYCLE_DURATION = "prewarm_cycle_duration_seconds"
REACTION_SECONDS = "prewarm_reaction_seconds"
REFLECTOR_OBJECTS = "prewarm_reflector_objects"
REFLECTOR_EVENTS = "prewarm_reflector_events_total"
REFLECTOR_RELISTS = "prewarm_reflector_relists_total"
REFLECTOR_ERRORS = "prewarm_reflector_errors_total"
EVENTS_DROPPED = "prewarm_events_dropped_total"
WRITES = "prewarm_writes_total"
WRITE_ERRORS = "prewarm_write_errors_total"
GATES_OPENED = "prewarm_gates_opened_total"
IMAGE_CACHES = "prewarm_imagecache_objects"
STEERED_WORKLOADS = "prewarm_steered_workloads"
STEERED_NODES = "prewarm_steered_nodes"
LEADER = "prewarm_leader"
BUILD_INFO = "prewarm_build_info"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LEAD = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)


class PullResult(StrEnum):
    """Closed set of `result` of prewarm_pulls_total."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Metrics:
    """All series of one controller in a registry of their own, so that several can live in one process."""

    def __init__(self, *, version: str, workload_labels: bool = False) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._workload_labels = workload_labels
        registry = self.registry
        labels = ("outcome", "namespace", "workload") if workload_labels else ("outcome",)
        self._starts = Counter(
            CONTAINER_STARTS, "First starts of containers of covered workloads by verdict.", labels, registry=registry
        )
        self._lead = Histogram(
            LEAD_SECONDS, "From the end of our pull to the pod's creation.", registry=registry, buckets=_LEAD
        )
        self._saved = Counter(SAVED_SECONDS, "What pulling would have taken for prewarmed starts.", registry=registry)
        self._pulled = Counter(PULLED_BYTES, "Compressed bytes pulled ahead.", registry=registry)
        self._used = Counter(USED_BYTES, "Bytes pulled ahead that a container used.", registry=registry)
        self._wasted = Counter(WASTED_BYTES, "Bytes pulled ahead that nothing used in time.", registry=registry)
        self._nodes = Counter(
            PREDICTED_NODES, "Warmed nodes by whether the image was used there.", ("result",), registry=registry
        )
        self.pulls_in_flight = Gauge(PULLS_IN_FLIGHT, "Puller pods that have not finished.", registry=registry)
        self._pulls = Counter(PULLS, "Finished pulls of ours by result.", ("result",), registry=registry)
        self.planning = Histogram(
            PLANNING_DURATION, "Time to plan the workloads that changed.", registry=registry, buckets=_SECONDS
        )
        self.cycle = Histogram(
            CYCLE_DURATION, "Time of one whole cycle, writes included.", registry=registry, buckets=_SECONDS
        )
        self.reaction = Histogram(
            REACTION_SECONDS,
            "From seeing a workload's change to its first puller pod being ordered.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.writes = Counter(WRITES, "Intents executed by kind.", ("intent",), registry=registry)
        self.gates_opened = Counter(GATES_OPENED, "Gates opened by reason.", ("reason",), registry=registry)
        self.write_errors = Counter(WRITE_ERRORS, "Intents that failed by kind.", ("intent",), registry=registry)
        self.image_caches = Gauge(IMAGE_CACHES, "ImageCaches by origin.", ("origin",), registry=registry)
        self.steered_workloads = Gauge(
            STEERED_WORKLOADS, "Workloads whose new pods prefer warm nodes now.", registry=registry
        )
        self.steered_nodes = Gauge(STEERED_NODES, "Nodes that carry a steering label.", registry=registry)
        self.leader = Gauge(LEADER, "1 if this instance holds the lease.", registry=registry)
        Gauge(BUILD_INFO, "Constant 1; the version is a label.", ("version",), registry=registry).labels(version).set(1)
        self._initialise()

    def _initialise(self) -> None:
        """Closed sets exist from the start, so that rates and ratios see the first increment."""
        if not self._workload_labels:
            for outcome in Outcome:
                self._starts.labels(outcome.value)
        for result in ("used", "unused"):
            self._nodes.labels(result)
        for pull_result in PullResult:
            self._pulls.labels(pull_result.value)
        for intent in ("Apply", "Create", "Delete", "LabelNode", "OpenGate", "RecordEvent", "RemoveAnnotation"):
            self.writes.labels(intent)
            self.write_errors.labels(intent)
        for reason in GateReason:
            self.gates_opened.labels(reason.value)
        for origin in ("planned", "written"):
            self.image_caches.labels(origin)

    def stand_by(self) -> None:
        """Leave to the next leader what only one may report: sums over instances count it once."""
        self.leader.set(0)
        self.pulls_in_flight.set(0)
        self.steered_workloads.set(0)
        self.steered_nodes.set(0)
        for origin in ("planned", "written"):
            self.image_caches.labels(origin).set(0)

    def count_starts(self, starts: Iterable[ContainerStart]) -> None:
        """Count judged starts."""
        for start in starts:
            if self._workload_labels:
                workload = f"{start.workload.kind.lower()}/{start.workload.name}"
                self._starts.labels(start.outcome.value, start.workload.namespace, workload).inc()
            else:
                self._starts.labels(start.outcome.value).inc()
            if start.lead_seconds is not None:
                self._lead.observe(max(0.0, start.lead_seconds))
            if start.saved_seconds is not None:
                self._saved.inc(max(0.0, start.saved_seconds))

    def count_bytes(self, verdicts: Iterable[ByteVerdict]) -> None:
        """Count bytes pulled ahead and what became of them."""
        for verdict in verdicts:
            match verdict.use:
                case ByteUse.PULLED:
                    self._pulled.inc(verdict.size_bytes)
                    self._pulls.labels(PullResult.SUCCEEDED.value).inc()
                case ByteUse.USED:
                    self._used.inc(verdict.size_bytes)
                    self._nodes.labels("used").inc()
                case ByteUse.WASTED:
                    self._wasted.inc(verdict.size_bytes)
                    self._nodes.labels("unused").inc()

    def count_failed_pulls(self, count: int) -> None:
        """Count pulls of ours that ended without the image."""
        self._pulls.labels(PullResult.FAILED.value).inc(count)


def watch_reflectors(metrics: Metrics, mirror: Mirror) -> None:
    """Export what the reflectors count, read at each scrape."""
    metrics.registry.register(_Reflectors(mirror))


class _Reflectors(Collector):
    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def collect(self) -> Iterable[Metric]:
        objects = GaugeMetricFamily(REFLECTOR_OBJECTS, "Objects held by kind.", labels=["kind"])
        events = CounterMetricFamily(REFLECTOR_EVENTS, "Watch events by kind.", labels=["kind"])
        lists = CounterMetricFamily(REFLECTOR_RELISTS, "Full reads by kind.", labels=["kind"])
        errors = CounterMetricFamily(REFLECTOR_ERRORS, "Failed watches and lists by kind.", labels=["kind"])
        for reflector in self._mirror.reflectors:
            counters, kind = reflector.counters, [reflector.name]
            objects.add_metric(kind, len(reflector.feed))
            events.add_metric(kind, counters.events)
            lists.add_metric(kind, counters.lists)
            errors.add_metric(kind, counters.errors)
        dropped = CounterMetricFamily(EVENTS_DROPPED, "Kubelet Events given up before accounting took them.")
        dropped.add_metric([], self._mirror.store.events.dropped)
        return (objects, events, lists, errors, dropped)
