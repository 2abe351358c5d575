"""Plans in force: what was predicted, kept until the starts that it was about are judged."""

from collections.abc import Iterable

from msgspec.structs import replace

from prewarm.model.outcomes import PlanInForce
from prewarm.model.plans import DemandPlan, Plan, SkipReason
from prewarm.model.workloads import WorkloadKey

RETENTION = 1800.0
"""Seconds that a withdrawn plan is kept, so that late container starts still find it."""
MAX_PLANS = 500
"""Plans kept; withdrawn ones go first, oldest first."""
MAX_NODES = 5000
"""Nodes kept of one plan."""

_Key = tuple[WorkloadKey, str]
_NOT_WITHHELD = frozenset(
    {SkipReason.ALREADY_PRESENT, SkipReason.PULLED_BY_POD, SkipReason.PULL_POLICY_NEVER, SkipReason.INVALID_IMAGE}
)
"""Skips that withhold no candidate node: nothing was to be pulled there, or the image is at fault everywhere."""


def plans_in_force(known: Iterable[PlanInForce], plan: Plan | None, now: float) -> tuple[PlanInForce, ...]:
    """Merge a new plan into those in force; withdraw what it no longer asks for and drop what is past retention.

    Nodes add up while a plan is in force: a pod that landed is no candidate any more, but still has to be judged. A
    plan that has named other nodes for longer than the retention ends, and goes on as a new one with the nodes of now.
    Judging the same plan twice changes nothing.
    """
    merged: dict[_Key, PlanInForce] = {}
    ended: list[PlanInForce] = []
    for old in sorted(known, key=lambda old: old.since):
        if (earlier := merged.get((old.workload, old.revision))) is not None:
            ended.append(earlier)
        merged[old.workload, old.revision] = old
    if plan is not None:
        asked = {(entry.demand.workload, entry.demand.revision) for entry in plan.demands}
        spoken_for = None if plan.only is None else frozenset(plan.only)
        for key, old in merged.items():
            if key not in asked and old.until is None and (spoken_for is None or old.workload in spoken_for):
                merged[key] = replace(old, until=now)
        for key, chosen in _chosen(plan).items():
            old_one = merged.get(key)
            if old_one is not None and now - old_one.since >= RETENTION and not chosen.issuperset(old_one.nodes):
                ended.append(replace(old_one, until=now if old_one.until is None else old_one.until))
                del merged[key]
        for entry in plan.demands:
            key = (entry.demand.workload, entry.demand.revision)
            merged[key] = _joined(merged.get(key), entry, now)
    kept = [old for old in (*ended, *merged.values()) if old.until is None or now - old.until < RETENTION]
    kept.sort(key=lambda old: (old.until is None, old.until or 0.0, old.since, old.workload, old.revision))
    kept = kept[-MAX_PLANS:]
    return tuple(sorted(kept, key=lambda old: (old.since, old.workload, old.revision)))


def _chosen(plan: Plan) -> dict[_Key, set[str]]:
    chosen: dict[_Key, set[str]] = {}
    for entry in plan.demands:
        names = chosen.setdefault((entry.demand.workload, entry.demand.revision), set())
        names.update(node.name for node in entry.nodes)
    return chosen


def _joined(old: PlanInForce | None, entry: DemandPlan, now: float) -> PlanInForce:
    chosen = [node.name for node in entry.nodes]
    nodes = tuple(dict.fromkeys([*(old.nodes if old else ()), *chosen]))[-MAX_NODES:]
    present = frozenset(nodes)
    withheld = dict(old.skipped) if old else {}
    withheld.update(
        {skip.node: skip.reason.value for skip in entry.skips if skip.node and skip.reason not in _NOT_WITHHELD}
    )
    skipped = tuple(sorted((node, reason) for node, reason in withheld.items() if node not in present))[:MAX_NODES]
    return PlanInForce(
        workload=entry.demand.workload,
        revision=entry.demand.revision,
        images=tuple(dict.fromkeys([*(old.images if old else ()), *entry.demand.images])),
        nodes=nodes,
        skipped=skipped,
        unpredictable=any(skip.reason is SkipReason.UNPREDICTABLE for skip in entry.skips),
        since=old.since if old else now,
        until=None,
    )
