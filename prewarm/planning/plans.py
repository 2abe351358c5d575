"""The plan for all covered workloads, or for those that changed."""

from collections.abc import Collection, Iterable
from functools import cached_property

from prewarm.demand import Coverage, coverage, covering_policy, demands, plan_again_at, previous_demands
from prewarm.history import History
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.plans import Demand, DemandPlan, Plan, Problem, Skip, SkipReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement import ClusterArrays, admitted_count, cluster_arrays
from prewarm.planning.demand_plan import plan_demand
from prewarm.planning.kept import plan_kept
from prewarm.planning.rolling import Rolling
from prewarm.planning.steering import steered_first
from prewarm.planning.underway import Done
from prewarm.presence import WarmthMemory, warmth

_NODES_FOR_NOTHING, _PODS_FOR_NOTHING = 100, 10
"""What a plan takes in any case, in the nodes and pods that cost as much."""
_QUICK = 10_000
"""Effort of about 10 ms: 40 pods in a pool of 100 nodes."""


def plan(
    snapshot: ClusterSnapshot,
    history: History,
    *,
    only: Collection[WorkloadKey] | None = None,
    seed: int = 0,
    memory: WarmthMemory | None = None,
    unsteerable: SteerState | None = None,
) -> Plan:
    """What to pull where. The same snapshot, history and seed give the same plan, ordering included.

    Args:
        snapshot: the cluster; its time is the plan's clock.
        history: what was learnt.
        only: plan these workloads alone; their part is the same as in the plan for all.
        seed: of the placement's replays.
        memory: kept by the caller between snapshots, so that unchanged nodes are not read again.
        unsteerable: why no pods can be steered in this cluster, whatever policies say; None if they can.
    """
    return Planner(snapshot, history, seed=seed, memory=memory, unsteerable=unsteerable).plan(only)


class Planner:
    """Makes plans on one snapshot, for all workloads or a few at a time; what they have in common is read once."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        history: History,
        *,
        seed: int = 0,
        memory: WarmthMemory | None = None,
        unsteerable: SteerState | None = None,
    ) -> None:
        """The arguments are those of `plan`."""
        self._snapshot = snapshot
        self._history = history
        self._heat = warmth(snapshot, memory)
        self._seed = seed
        self._unsteerable = unsteerable
        self._pulls = Done(snapshot)
        self._rolling = Rolling(snapshot, history)
        self._wanted: dict[WorkloadKey, tuple[Demand, ...]] = {}

    def plan(self, only: Collection[WorkloadKey] | None = None) -> Plan:
        """The plan for all workloads, or for these alone."""
        made = _Made()
        for key in sorted(self._snapshot.workloads if only is None else set(only)):
            workload = self._snapshot.workloads.get(key)
            if workload is not None:
                self._consider(workload, made)
        return Plan(
            tuple(made.entries),
            tuple(made.skips),
            tuple(made.problems),
            None if only is None else tuple(sorted(set(only))),
            tuple(made.later),
        )

    def quickest_first(self, workloads: Iterable[WorkloadKey]) -> list[WorkloadKey]:
        """In the order of the time that their plans will take, as far as that can be guessed."""
        ordered = list(workloads)
        return sorted(ordered, key=self._effort) if len(ordered) > 1 else ordered

    def is_quick(self, key: WorkloadKey) -> bool:
        """Whether a workload's plan takes little, as far as that can be guessed."""
        return self._effort(key) <= _QUICK

    def is_idle(self, key: WorkloadKey) -> bool:
        """Whether no pods of a workload are to come: then its plan takes little in a cluster of any size.

        To find out takes milliseconds for a rollout of hundreds of pods, which are not spent again on its plan.
        """
        workload = self._snapshot.workloads.get(key)
        policy = None if workload is None else covering_policy(self._snapshot, workload)
        if policy is None:
            return True
        try:
            return not self._demands(key, policy)
        except ValueError:
            return True

    def _effort(self, key: WorkloadKey) -> int:
        """Grows with the pods to place and the nodes that they may choose from: a small pool's plan takes a tenth."""
        workload = self._snapshot.workloads.get(key)
        if workload is None or not _is_covered(coverage(self._snapshot, workload)):
            return 0
        nodes = admitted_count(workload.template.shape, self._cluster)
        return (nodes + _NODES_FOR_NOTHING) * (workload.replicas + _PODS_FOR_NOTHING)

    @cached_property
    def _cluster(self) -> ClusterArrays:
        """Made for the first demand: most plans have none."""
        return cluster_arrays(self._snapshot)

    def _demands(self, key: WorkloadKey, policy: Policy) -> tuple[Demand, ...]:
        """What a workload will need under the policy that covers it.

        Raises:
            ValueError: if its strategy cannot be read.
        """
        found = self._wanted.get(key)
        if found is None:
            found = self._wanted[key] = demands(self._snapshot, key, policy, self._history)
        return found

    def _consider(self, workload: Workload, made: "_Made") -> None:
        """Add what one workload needs, or why nothing is done for it."""
        key, snapshot = workload.key, self._snapshot
        wishes = coverage(snapshot, workload)
        if wishes.problem:
            made.problems.append(Problem(key, wishes.problem))
        if wishes.policy is None:
            return
        if wishes.policy.mode is PolicyMode.OFF:
            made.skips.append(Skip(SkipReason.POLICY_OFF, key))
            return
        try:
            wanted = self._demands(key, wishes.policy)
        except ValueError as error:
            made.problems.append(Problem(key, f"strategy of {key}: {error}"))
            return
        again = plan_again_at(snapshot, workload, wishes, self._history)
        if again is not None:
            made.later.append((key, again))
        first = steered_first(wanted)
        made.entries.extend(self._planned(demand, wishes.policy, first) for demand in wanted)
        replaced = previous_demands(snapshot, key, wishes.policy, wishes.excluded)
        made.entries.extend(plan_kept(demand, wishes.policy, snapshot, self._heat) for demand in replaced)

    def _planned(self, demand: Demand, policy: Policy, steered: Demand | None) -> DemandPlan:
        """One demand's plan; of a workload's demands only one is steered."""
        return plan_demand(
            demand,
            policy,
            self._snapshot,
            self._heat,
            self._history,
            cluster=self._cluster,
            pulls=self._pulls,
            seed=self._seed,
            unsteerable=self._unsteerable or (None if demand is steered else SteerState.OTHER_DEMAND),
            rivals=self._rolling.beside(demand, self._cluster),
        )


def _is_covered(wishes: Coverage) -> bool:
    return wishes.policy is not None and wishes.policy.mode is not PolicyMode.OFF


class _Made:
    """A plan in the making: what was decided so far."""

    def __init__(self) -> None:
        self.entries: list[DemandPlan] = []
        self.skips: list[Skip] = []
        self.problems: list[Problem] = []
        self.later: list[tuple[WorkloadKey, float]] = []
