"""Log lines and metrics about decisions: one line each, reasons as fields."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import structlog

from prewarm.accounting import ByteUse, ByteVerdict
from prewarm.controller.metrics import Metrics
from prewarm.model.nodes import NodeImages
from prewarm.model.outcomes import ContainerStart
from prewarm.model.plans import DemandPlan, Plan, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey
from prewarm.puller import PullerDecision

QUIET_SECONDS = 60.0
"""A reason to wait is told again once it was absent for this long: in a rollout it comes and goes all the time."""

log = structlog.stdlib.get_logger("prewarm.decisions")

_Demanded = tuple[WorkloadKey, Trigger]


class Reporter:
    """Tells what was decided, leaving out what was told before."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: dict[_Demanded, tuple[str, int, int]] = {}
        self._problems: dict[WorkloadKey, str] = {}
        self._attempts: dict[tuple[str, str, str], int] | None = None
        self._records: Mapping[str, NodeImages] = {}
        self._withheld_at: dict[str, float] = {}

    def planned(self, plan: Plan) -> None:
        """Log each demand whose answer changed, and each problem."""
        asked = {(entry.demand.workload, entry.demand.trigger) for entry in plan.demands}
        spoken_for = None if plan.only is None else frozenset(plan.only)
        for key in [key for key in self._told if key not in asked and (spoken_for is None or key[0] in spoken_for)]:
            del self._told[key]
            log.info("demand over", workload=str(key[0]), trigger=key[1].value)
        for entry in plan.demands:
            self._demand(entry)
        problems = {problem.workload: problem.message for problem in plan.problems}
        for workload, message in problems.items():
            if self._problems.get(workload) != message:
                log.warning("workload cannot be planned", workload=str(workload), problem=message)
        others = () if spoken_for is None else self._problems.keys() - spoken_for
        self._problems = {**{workload: self._problems[workload] for workload in others}, **problems}

    def _demand(self, entry: DemandPlan) -> None:
        demand = entry.demand
        missing = sum(1 for node in entry.nodes if node.missing)
        now = (demand.revision, len(entry.nodes), missing)
        key = (demand.workload, demand.trigger)
        before = self._told.get(key)
        if before == now:
            return
        self._told[key] = now
        tell = log.info if before is None or before[0] != demand.revision else log.debug
        tell(
            "planned",
            workload=str(demand.workload),
            trigger=demand.trigger.value,
            revision=demand.revision,
            images=demand.images,
            pods=demand.pods,
            nodes=len(entry.nodes),
            to_pull=missing,
            predictability=round(entry.candidates.predictability, 3),
            skipped=_counts(skip.reason.value for skip in entry.skips),
            rejected={reason.value: count for reason, count in entry.candidates.rejected},
            shadow=entry.shadow,
        )

    def pulling(self, decision: PullerDecision, snapshot: ClusterSnapshot) -> None:
        """Set what is in flight, count failed pulls, and log why pulls wait when that begins."""
        self._metrics.pulls_in_flight.set(decision.in_flight)
        planned = sum(1 for cache in snapshot.image_caches.values() if cache.planned)
        self._metrics.image_caches.labels("planned").set(planned)
        self._metrics.image_caches.labels("written").set(len(snapshot.image_caches) - planned)
        self._metrics.count_failed_pulls(self._failed(snapshot))
        withheld = {reason.value: count for reason, count in decision.withheld.items()}
        now = snapshot.taken_at
        if any(now - self._withheld_at.get(reason, 0.0) >= QUIET_SECONDS for reason in withheld):
            log.info("pulls withheld", in_flight=decision.in_flight, reasons=withheld)
        self._withheld_at.update(dict.fromkeys(withheld, now))

    def _failed(self, snapshot: ClusterSnapshot) -> int:
        """Failed attempts on the nodes' records since the last call; those found at the start were counted before."""
        if self._records is snapshot.node_images and self._attempts is not None:
            return 0
        self._records = snapshot.node_images
        attempts = {
            (name, failure.image, failure.cache_uid): failure.attempts
            for name, record in snapshot.node_images.items()
            for failure in record.failures
        }
        before, self._attempts = self._attempts, attempts
        if before is None:
            return 0
        return sum(max(0, count - before.get(key, 0)) for key, count in attempts.items())

    def judged(self, starts: Sequence[ContainerStart]) -> None:
        """Log container starts; they are counted once they are remembered."""
        for start in starts:
            log.info(
                "container started",
                workload=str(start.workload),
                pod_uid=start.pod_uid,
                container=start.container,
                image=start.image,
                node=start.node,
                outcome=start.outcome.value,
                lead_seconds=start.lead_seconds,
                saved_seconds=start.saved_seconds,
                pull_seconds=start.pull_seconds,
            )

    def weighed(self, verdicts: Iterable[ByteVerdict]) -> None:
        """Log wasted bytes."""
        for verdict in verdicts:
            if verdict.use is ByteUse.WASTED:
                reason = verdict.reason.value if verdict.reason is not None else ""
                log.info("pull wasted", node=verdict.node, image=verdict.image, bytes=verdict.size_bytes, reason=reason)


def _counts(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))
