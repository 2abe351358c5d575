"""All that a covered workload will need."""

from msgspec.structs import replace

from prewarm.demand.argo_rollout import argo_rollout_demand, rollout_stage
from prewarm.demand.clone_set import clone_set_stage
from prewarm.demand.coverage import Coverage, coverage
from prewarm.demand.daemon_set import daemon_set_demand
from prewarm.demand.flagger import flagger_demand
from prewarm.demand.in_place import in_place_demand, left_to_kruise
from prewarm.demand.injected import Injected, injected, with_injected
from prewarm.demand.jobs import job_demand, looked_at_again
from prewarm.demand.plain_canary import plain_canary_demands
from prewarm.demand.replica_set import replica_set_stage
from prewarm.demand.revisions import with_template
from prewarm.demand.rollout import Stage, rollout_demand, stage
from prewarm.demand.scale_out import scale_out_demand
from prewarm.demand.stateful_set import stateful_set_demand
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.progressive import IN_PLACE_KINDS
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey


def demands(snapshot: ClusterSnapshot, workload: WorkloadKey, policy: Policy, history: History) -> tuple[Demand, ...]:
    """What a workload will need: its rollout while one is under way, else its next scale-out; and what is announced.

    A workload that is gone, or of a kind that is not predicted, needs nothing. A question what would be if is answered
    even where the policy leaves out rollouts or scale-outs.

    Raises:
        ValueError: if maxSurge or maxUnavailable cannot be read.
    """
    found = snapshot.workloads.get(workload)
    if found is None or found.deleted_at is not None:
        return ()
    found = with_template(snapshot, found)
    wishes = coverage(snapshot, found)
    needed = _all(snapshot, found, wishes, policy, history)
    added = injected(snapshot, found) if needed else Injected()
    return tuple(with_injected(demand, found, added, wishes.excluded) for demand in needed)


def _all(
    snapshot: ClusterSnapshot, found: Workload, wishes: Coverage, policy: Policy, history: History
) -> tuple[Demand, ...]:
    """What follows from the template as it is, and as it is announced."""
    workload = found.key
    now = _now(snapshot, found, wishes, policy, history)
    if wishes.announced is None or not policy.rollout:
        return now
    later = replace(
        snapshot,
        workloads={**snapshot.workloads, workload: wishes.announced},
        asked=snapshot.asked | {workload},
    )
    ahead = _now(later, wishes.announced, wishes, policy, history)
    return (*now, *(replace(demand, trigger=Trigger.ANNOUNCED) for demand in ahead))


def _now(
    snapshot: ClusterSnapshot, found: Workload, wishes: Coverage, policy: Policy, history: History
) -> tuple[Demand, ...]:
    """What follows from the template and replicas as they are."""
    workload = found.key
    ahead = in_place_demand(snapshot, found, wishes.excluded, history)
    match workload.kind:
        case _ if ahead is not None:
            pass
        case "Deployment":
            return _of_deployment(snapshot, found, wishes, policy, history)
        case "ReplicaSet":
            return _of_stage(snapshot, replica_set_stage(snapshot, found), None, wishes, policy)
        case "CronJob" | "Job":
            coming = job_demand(snapshot, found, wishes.excluded, history)
            return () if coming is None or not (policy.scale_out or workload in snapshot.asked) else (coming,)
        case "CloneSet":
            at = clone_set_stage(snapshot, found)
            rolling = rollout_demand(snapshot, at, wishes.excluded, history)
            rolling = rolling and replace(rolling, withheld=left_to_kruise(snapshot, found))
            return _of_stage(snapshot, at, rolling, wishes, policy)
        case "Rollout":
            at = rollout_stage(snapshot, found)
            rolling = argo_rollout_demand(snapshot, at, wishes.excluded, history)
            return _of_stage(snapshot, at, rolling, wishes, policy)
        case "StatefulSet" | "AdvancedStatefulSet":
            ahead = stateful_set_demand(snapshot, found, wishes.excluded, history)
        case "DaemonSet" | "AdvancedDaemonSet":
            ahead = daemon_set_demand(snapshot, found, wishes.excluded, history)
        case _:
            ahead = None
    if ahead is not None and workload.kind in IN_PLACE_KINDS:
        ahead = replace(ahead, withheld=left_to_kruise(snapshot, found))
    wanted = policy.scale_out if ahead is not None and ahead.trigger is Trigger.SCALE_OUT else policy.rollout
    return () if ahead is None or not (wanted or workload in snapshot.asked) else (ahead,)


def _of_deployment(
    snapshot: ClusterSnapshot, found: Workload, wishes: Coverage, policy: Policy, history: History
) -> tuple[Demand, ...]:
    at = stage(snapshot, found)
    under_way = rollout_demand(snapshot, at, wishes.excluded, history)
    if under_way is None and policy.rollout and found.key not in snapshot.asked:
        on_trial = flagger_demand(snapshot, found, wishes.excluded, history)
        if on_trial is not None:
            return (on_trial,)
        trials = plain_canary_demands(snapshot, found, policy, wishes.excluded, history)
        # Such a canary may run for days: the next scale-out comes as it would without it.
        return (*trials, *_of_stage(snapshot, at, under_way, wishes, policy))
    return _of_stage(snapshot, at, under_way, wishes, policy)


def _of_stage(
    snapshot: ClusterSnapshot, at: Stage, under_way: Demand | None, wishes: Coverage, policy: Policy
) -> tuple[Demand, ...]:
    """A rollout while one is under way, else the next scale-out."""
    workload = at.workload.key
    if under_way is not None:
        return (under_way,) if policy.rollout or workload in snapshot.asked else ()
    if not policy.scale_out and not (workload in snapshot.asked and at.missing):
        return ()
    ahead = scale_out_demand(snapshot, at, policy, wishes.headroom_percent, wishes.excluded)
    return () if ahead is None else (ahead,)


def plan_again_at(snapshot: ClusterSnapshot, workload: Workload, wishes: Coverage, history: History) -> float | None:
    """When a workload has to be planned again though nothing changes (Unix seconds); None if never."""
    return looked_at_again(snapshot, workload, wishes.excluded, history)
