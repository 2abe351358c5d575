"""The plan for all covered workloads, or for those that changed."""

from collections.abc import Collection

from prewarm.demand import coverage, demands, plan_again_at, previous_demands
from prewarm.history import History
from prewarm.model.image_caches import PolicyMode
from prewarm.model.plans import DemandPlan, Plan, Problem, Skip, SkipReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import ClusterArrays, cluster_arrays
from prewarm.planning.demand_plan import plan_demand
from prewarm.planning.kept import plan_kept
from prewarm.planning.rolling import Rolling
from prewarm.planning.steering import steered_first
from prewarm.planning.underway import Done
from prewarm.presence import WarmthMemory, warmth


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
    heat = warmth(snapshot, memory)
    cluster: ClusterArrays | None = None
    pulls = Done(snapshot)
    rolling = Rolling(snapshot, history)
    entries: list[DemandPlan] = []
    skips: list[Skip] = []
    problems: list[Problem] = []
    later: list[tuple[WorkloadKey, float]] = []
    for key in sorted(snapshot.workloads if only is None else set(only)):
        workload = snapshot.workloads.get(key)
        if workload is None:
            continue
        wishes = coverage(snapshot, workload)
        if wishes.problem:
            problems.append(Problem(key, wishes.problem))
        if wishes.policy is None:
            continue
        if wishes.policy.mode is PolicyMode.OFF:
            skips.append(Skip(SkipReason.POLICY_OFF, key))
            continue
        try:
            wanted = demands(snapshot, key, wishes.policy, history)
        except ValueError as error:
            problems.append(Problem(key, f"strategy of {key}: {error}"))
            continue
        again = plan_again_at(snapshot, workload, wishes, history)
        if again is not None:
            later.append((key, again))
        first = steered_first(wanted)
        for demand in wanted:
            cluster = cluster or cluster_arrays(snapshot)
            entries.append(
                plan_demand(
                    demand,
                    wishes.policy,
                    snapshot,
                    heat,
                    history,
                    cluster=cluster,
                    pulls=pulls,
                    seed=seed,
                    unsteerable=unsteerable or (None if demand is first else SteerState.OTHER_DEMAND),
                    rivals=rolling.beside(demand),
                )
            )
        replaced = previous_demands(snapshot, key, wishes.policy, wishes.excluded)
        entries.extend(plan_kept(demand, wishes.policy, snapshot, heat) for demand in replaced)
    return Plan(
        tuple(entries),
        tuple(skips),
        tuple(problems),
        None if only is None else tuple(sorted(set(only))),
        tuple(later),
    )
