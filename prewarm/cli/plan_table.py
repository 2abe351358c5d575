"""A plan for people: what comes, where, what is pulled there, and why not elsewhere."""

from collections import Counter
from datetime import UTC, datetime

from prewarm.cli import plan_batches
from prewarm.cli.output import console, table
from prewarm.cli.plan_report import advice, is_present, labelled_nodes
from prewarm.demand import far_ahead
from prewarm.model.plans import DemandPlan, NewNodes, Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import STATE_WORDS, Steering, SteerState
from prewarm.presence import Warmth, warmth

_SHOWN_NODES = 40
"""Rows of a demand's table: more belong into --output json."""
_SHOWN_LABELLED = 12


def print_plan(plan: Plan, snapshot: ClusterSnapshot) -> None:
    """Print every demand, then what was left out altogether."""
    out = console()
    known = warmth(snapshot)
    for entry in plan.demands:
        _print_demand(entry, snapshot, known)
    if plan.skips:
        rows = [(str(skip.workload), skip.reason.value) for skip in plan.skips]
        out.print(table("Not planned", ("WORKLOAD", "REASON"), rows))
    if plan.problems:
        rows = [(str(problem.workload), problem.message) for problem in plan.problems]
        out.print(table("Problems", ("WORKLOAD", "MESSAGE"), rows))
    if not plan.demands and not plan.problems:
        out.print("Nothing to prewarm: no covered workload rolls out or is about to scale.")


def _print_demand(entry: DemandPlan, snapshot: ClusterSnapshot, known: Warmth) -> None:
    out = console()
    demand, candidates = entry.demand, entry.candidates
    out.print(f"{demand.workload}", style="bold", end="")
    shadow = ", shadow: planned, not delivered" if entry.shadow else ""
    out.print(f"  {demand.trigger.value}: {demand.pods} pods to come, {_when(entry, snapshot)}{shadow}", markup=False)
    for image in demand.images:
        out.print(f"  image {image}", markup=False)
    pull = sum(bool(node.missing) for node in entry.nodes)
    out.print(
        f"  {len(candidates.nodes)} nodes may take them, {pull} to pull on, "
        f"two replays agree on {candidates.predictability:.0%} of the pods",
        markup=False,
    )
    if entry.drawn:
        out.print("  drawn there by the image itself, once the nodes list it (ImageLocality)", markup=False)
    if candidates.unplaced:
        out.print(f"  {candidates.unplaced} pods find no node", markup=False)
    for group in entry.new_nodes:
        out.print(f"  {_new_nodes(group)}", markup=False)
    if entry.steering is not None:
        out.print(f"  {_steering(entry.steering, snapshot)}", markup=False)
    if told := advice(entry):
        out.print(f"  cannot be predicted: {told}", markup=False, soft_wrap=True)
    _print_batches(entry, snapshot)
    _print_nodes(entry, known)
    reasons = [(reason.value, str(number)) for reason, number in candidates.rejected]
    if reasons:
        out.print(table("Rejected nodes", ("REASON", ">NODES"), reasons))


def _print_batches(entry: DemandPlan, snapshot: ClusterSnapshot) -> None:
    rows, more = plan_batches.rows(entry.demand, snapshot.taken_at)
    if not rows:
        return
    out = console()
    which = any(row[-1] for row in rows)
    columns = ("BATCH", "COMES", ">PODS", "WHICH")
    out.print(table("", columns if which else columns[:-1], rows if which else [row[:-1] for row in rows]))
    if more:
        out.print(f"  {more}", markup=False)


def _new_nodes(group: NewNodes) -> str:
    starting = f"; starting now: {', '.join(group.starting)}" if group.starting else ""
    number = f"{group.nodes} at {group.pods_each} pods each"
    return f"new nodes of {group.label}={group.group} would take them, {number}{starting}"


def _steering(to: Steering, snapshot: ClusterSnapshot) -> str:
    if to.state is not SteerState.STEERED:
        return f"not steered: {to.state.value}, {STATE_WORDS[to.state]}"
    carrying = labelled_nodes(to, snapshot)
    shown = ", ".join(carrying[:_SHOWN_LABELLED]) + (", ..." if len(carrying) > _SHOWN_LABELLED else "")
    said = f"{len(carrying)} carry the label {to.label}={to.value}" + (f": {shown}" if carrying else "")
    waits = f"; nodes for {to.waits} more pods follow once it is known which old ones leave" if to.waits else ""
    return f"steered to {len(to.nodes)} nodes{waits}; {said}"


def _print_nodes(entry: DemandPlan, known: Warmth) -> None:
    chosen = {node.name: node for node in entry.nodes}
    skipped = {skip.node: skip.reason.value for skip in entry.skips if skip.node}
    images = [(skip.image, skip.reason.value) for skip in entry.skips if skip.image]
    rows = []
    names = [node.name for node in entry.candidates.nodes]
    probabilities = {node.name: node.probability for node in entry.candidates.nodes}
    for name in (*names, *(name for name in chosen if name not in probabilities)):
        if name in chosen and chosen[name].missing:
            state = "pull"
        elif is_present(entry, name, known):
            state = "present"
        else:
            state = f"skipped: {skipped.get(name, 'NotChosen')}"
        rows.append((name, f"{probabilities.get(name, 0.0):.0%}", state))
    out = console()
    if rows:
        out.print(table("", ("NODE", ">LANDING", "PLAN"), rows[:_SHOWN_NODES]))
    if len(rows) > _SHOWN_NODES:
        rest = Counter(state for _, _, state in rows[_SHOWN_NODES:])
        said = ", ".join(f"{number} {state}" for state, number in rest.most_common())
        out.print(f"  and {len(rows) - _SHOWN_NODES} more nodes ({said}); all with --output json", markup=False)
    if images:
        out.print(table("Skipped images", ("IMAGE", "REASON"), images))


def _when(entry: DemandPlan, snapshot: ClusterSnapshot) -> str:
    times = [batch.needed_at for batch in entry.demand.batches if batch.pods]
    if not times:
        return "all there"
    ahead = min(times) - snapshot.taken_at
    if ahead <= 1:
        return "the first ones now"
    if min(times) >= far_ahead(snapshot.taken_at):
        return "nobody knows when"
    return f"the first ones at {datetime.fromtimestamp(min(times), UTC):%H:%M:%S} UTC"
