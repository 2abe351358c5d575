"""An explained workload, for people and as data."""

from prewarm.api.fields import api_time
from prewarm.cli.explanation import StartExplained, WorkloadExplained
from prewarm.cli.output import console, table
from prewarm.cli.plan_report import report
from prewarm.cli.plan_table import print_plan
from prewarm.model.intents import Json
from prewarm.model.outcomes import PlanInForce
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot

_SHOWN_NODES = 12


def show(told: WorkloadExplained, plan: Plan, snapshot: ClusterSnapshot) -> None:
    """Print how it is covered, what comes next, what was predicted and what happened."""
    out = console()
    out.print(f"{told.workload}", style="bold", markup=False)
    out.print(f"  {told.covered}", markup=False, soft_wrap=True)
    out.print("\nWhat comes next", style="bold")
    print_plan(plan, snapshot)
    if told.plans:
        rows = [_plan_row(entry) for entry in told.plans]
        out.print(table("What was predicted", ("SINCE", "UNTIL", "IMAGES", ">NODES", "WHICH", "LEFT OUT"), rows))
    if told.starts:
        counted = ", ".join(f"{count} {outcome.value}" for outcome, count in told.outcomes)
        ratio = "" if told.ratio is None else f"; prewarm hit ratio {told.ratio:.1%}"
        out.print(f"What happened: {counted}{ratio}", style="bold", markup=False)
        out.print(table("", ("STARTED", "POD", "NODE", "OUTCOME", "WHY"), [_start_row(entry) for entry in told.starts]))
    else:
        out.print("What happened: no container start is remembered", markup=False)


def data(told: WorkloadExplained, plan: Plan, snapshot: ClusterSnapshot) -> dict[str, Json]:
    """The same as JSON; `next` is what `prewarm plan --output json` prints."""
    return {
        "workload": str(told.workload),
        "covered": told.covered,
        "next": report(plan, snapshot),
        "predicted": [_plan(entry) for entry in told.plans],
        "outcomes": {outcome.value: count for outcome, count in told.outcomes},
        "hitRatio": None if told.ratio is None else round(told.ratio, 4),
        "starts": [_start(entry) for entry in told.starts],
    }


def _plan_row(plan: PlanInForce) -> tuple[str, ...]:
    which = ", ".join(plan.nodes[:_SHOWN_NODES]) + (", ..." if len(plan.nodes) > _SHOWN_NODES else "")
    reasons: dict[str, int] = {}
    for _, reason in plan.skipped:
        reasons[reason] = reasons.get(reason, 0) + 1
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    until = "in force" if plan.until is None else api_time(float(int(plan.until)))
    return (api_time(float(int(plan.since))), until, ", ".join(plan.images), str(len(plan.nodes)), which, left_out)


def _start_row(entry: StartExplained) -> tuple[str, ...]:
    start = entry.start
    name = start.pod_name or start.pod_uid
    return (api_time(float(int(start.started_at))), name, start.node, start.outcome.value, entry.why)


def _plan(plan: PlanInForce) -> Json:
    return {
        "revision": plan.revision,
        "images": list(plan.images),
        "nodes": list(plan.nodes),
        "leftOut": [{"node": node, "reason": reason} for node, reason in plan.skipped],
        "unpredictable": plan.unpredictable,
        "since": api_time(plan.since),
        "until": None if plan.until is None else api_time(plan.until),
    }


def _start(entry: StartExplained) -> Json:
    start = entry.start
    return {
        "pod": start.pod_name,
        "podUid": start.pod_uid,
        "container": start.container,
        "image": start.image,
        "node": start.node,
        "outcome": start.outcome.value,
        "why": entry.why,
        "createdAt": api_time(start.created_at),
        "startedAt": api_time(start.started_at),
    }
