"""Events on workloads, for the people who own them: once for each plan and problem."""

from collections import Counter
from collections.abc import Collection, Iterator

from prewarm.model.intents import (
    ADVANCED_DAEMON_SETS,
    ADVANCED_STATEFUL_SETS,
    CLONE_SETS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    REPLICA_SETS,
    ROLLOUTS,
    STATEFUL_SETS,
    RecordEvent,
    Resource,
)
from prewarm.model.plans import DemandPlan, Plan, SkipReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import STATE_WORDS, SteerState
from prewarm.model.workloads import WorkloadKey

REASON_PREWARMING = "Prewarming"
REASON_UNPREDICTABLE = "PrewarmUnpredictable"
REASON_PROBLEM = "PrewarmProblem"
MAX_REMEMBERED = 10_000

_RESOURCES: dict[str, Resource] = {
    "Deployment": DEPLOYMENTS,
    "StatefulSet": STATEFUL_SETS,
    "DaemonSet": DAEMON_SETS,
    "CloneSet": CLONE_SETS,
    "AdvancedStatefulSet": ADVANCED_STATEFUL_SETS,
    "AdvancedDaemonSet": ADVANCED_DAEMON_SETS,
    "Rollout": ROLLOUTS,
    "ReplicaSet": REPLICA_SETS,
    "CronJob": CRON_JOBS,
    "Job": JOBS,
}
_SHOWN_IMAGES = 3
_Said = tuple[WorkloadKey, str]


class Announcer:
    """Turns plans into Events, leaving out what was said before."""

    def __init__(self) -> None:
        self._said: dict[_Said, None] = {}

    def known(self, said: Collection[_Said]) -> None:
        """Workloads and revisions that an earlier instance announced."""
        for key in said:
            self._remember(key)

    def about(self, plan: Plan, snapshot: ClusterSnapshot) -> tuple[RecordEvent, ...]:
        """What the owners of the planned workloads should know and were not told."""
        return (*self._plans(plan), *self._problems(plan, snapshot))

    def _plans(self, plan: Plan) -> Iterator[RecordEvent]:
        for entry in plan.demands:
            demand = entry.demand
            resource = _RESOURCES.get(demand.workload.kind)
            words = _words(entry)
            if resource is None or words is None or not self._is_new((demand.workload, demand.revision)):
                continue
            reason, message = words
            key = demand.workload
            yield RecordEvent(resource, key.namespace, key.name, demand.workload_uid, reason, message)

    def _problems(self, plan: Plan, snapshot: ClusterSnapshot) -> Iterator[RecordEvent]:
        for problem in plan.problems:
            key = problem.workload
            workload, resource = snapshot.workloads.get(key), _RESOURCES.get(key.kind)
            if workload is None or resource is None or not self._is_new((key, problem.message)):
                continue
            yield RecordEvent(
                resource, key.namespace, key.name, workload.uid, REASON_PROBLEM, problem.message, warning=True
            )

    def _is_new(self, said: _Said) -> bool:
        if said in self._said:
            return False
        self._remember(said)
        return True

    def _remember(self, said: _Said) -> None:
        self._said[said] = None
        while len(self._said) > MAX_REMEMBERED:
            del self._said[next(iter(self._said))]


def _words(entry: DemandPlan) -> tuple[str, str] | None:
    """Reason and message of one demand; None if nothing is to be pulled."""
    demand = entry.demand
    images = _images(demand.images)
    missing = sum(1 for node in entry.nodes if node.missing)
    if missing:
        action = "Would prewarm" if entry.shadow else "Prewarming"
        nodes = "1 node" if missing == 1 else f"{missing} nodes"
        steered = ", steered there" if entry.steering and entry.steering.state is SteerState.STEERED else ""
        words = f"({demand.trigger.value}, {demand.pods} pods to come{steered})"
        return REASON_PREWARMING, f"{action} {nodes} for {images} {words}"
    unpredictable = Counter(skip.reason for skip in entry.skips)[SkipReason.UNPREDICTABLE]
    if unpredictable and not entry.nodes:
        share = round(entry.candidates.predictability * 100)
        advice = (
            "steer its pods (placement.steer: Prefer in its policy), announce the image before the change, with "
            "`prewarm warm`, or accept that they start cold"
        )
        if entry.steering is not None:
            advice = f"its pods are not steered: {STATE_WORDS[entry.steering.state]}"
        message = (
            f"Nodes for {images} cannot be predicted ({share}% of the pods repeat their nodes in replays): {advice}"
        )
        return REASON_UNPREDICTABLE, message
    return None


def _images(images: tuple[str, ...]) -> str:
    shown = ", ".join(image.rpartition("/")[2] for image in images[:_SHOWN_IMAGES])
    more = len(images) - _SHOWN_IMAGES
    return f"{shown} and {more} more" if more > 0 else shown
