"""A plan as data: the JSON of `prewarm plan --output json`."""

from datetime import UTC, datetime

from prewarm.api.image_cache import image_cache_manifest
from prewarm.cli import plan_batches
from prewarm.cli.advice import ADVICE
from prewarm.delivery.planned_cache import planned_cache
from prewarm.model.images import PullPolicy
from prewarm.model.intents import Json
from prewarm.model.nodes import pull_identity
from prewarm.model.plans import DemandPlan, Plan, Skip, SkipReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import STATE_WORDS, Steering, SteerState
from prewarm.presence import Warmth, warmth


def report(plan: Plan, snapshot: ClusterSnapshot) -> dict[str, Json]:
    """Demands with the nodes where their pods land, the ImageCaches that would be written, and what was skipped."""
    known = warmth(snapshot)
    skips = [skip for entry in plan.demands for skip in entry.skips] + list(plan.skips)
    result: dict[str, Json] = {
        "demands": [_demand(entry, known, snapshot) for entry in plan.demands],
        "imageCaches": [cache for entry in plan.demands for cache in image_caches(entry, snapshot)],
        "skipped": [_skip(skip) for skip in skips],
    }
    if plan.problems:
        result["problems"] = [
            {"workload": str(problem.workload), "message": problem.message} for problem in plan.problems
        ]
    return result


def image_caches(entry: DemandPlan, snapshot: ClusterSnapshot) -> list[Json]:
    """The manifest that a demand's plan leads to, if anything is to be pulled and the policy lets it."""
    workload = snapshot.workloads.get(entry.demand.workload)
    if entry.shadow or workload is None or not any(node.missing for node in entry.nodes):
        return []
    cache = planned_cache(entry, workload.api_version)
    return [] if cache is None else [image_cache_manifest(cache)]


def is_present(entry: DemandPlan, node: str, known: Warmth) -> bool:
    """Whether all images of a demand are on a node, for its pods to use."""
    shape = entry.demand.template.shape
    identity = pull_identity(entry.demand.workload.namespace, shape.service_account, shape.pull_secrets)
    policies = {container.image: container.pull_policy for container in shape.containers}
    return all(
        known.is_warm(node, image, pull_identity=identity, pull_policy=policies.get(image, PullPolicy.IF_NOT_PRESENT))
        for image in entry.demand.images
    )


def needed_at(entry: DemandPlan) -> str | None:
    """When the first pods come, as RFC 3339; None if none are to come any more."""
    times = [batch.needed_at for batch in entry.demand.batches if batch.pods]
    if not times:
        return None
    return datetime.fromtimestamp(min(times), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def advice(entry: DemandPlan) -> str | None:
    """What can be done where nobody can know where the pods land; None where it is known well enough."""
    reason = SkipReason.UNPREDICTABLE
    return ADVICE[reason.value] if any(skip.reason is reason for skip in entry.skips) else None


def labelled_nodes(to: Steering, snapshot: ClusterSnapshot) -> list[str]:
    """Nodes that carry the label of what is steered."""
    return [name for name, node in sorted(snapshot.nodes.items()) if to.label and node.labels.get(to.label) == to.value]


def _steering(to: Steering, snapshot: ClusterSnapshot) -> dict[str, Json]:
    if to.state is not SteerState.STEERED:
        return {"state": to.state.value, "why": STATE_WORDS[to.state]}
    return {
        "state": to.state.value,
        "label": f"{to.label}={to.value}",
        "nodes": list(to.nodes),
        "labelled": list(labelled_nodes(to, snapshot)),
        "podsLater": to.waits,
    }


def _demand(entry: DemandPlan, known: Warmth, snapshot: ClusterSnapshot) -> Json:
    demand, candidates = entry.demand, entry.candidates
    steering = {} if entry.steering is None else {"steering": _steering(entry.steering, snapshot)}
    return {
        "workload": str(demand.workload),
        "trigger": demand.trigger.value,
        "images": list(demand.images),
        "pods": demand.pods,
        "neededAt": needed_at(entry),
        **plan_batches.data(demand, snapshot.taken_at),
        "predictability": round(candidates.predictability, 4),
        "drawn": entry.drawn,
        "unplaced": candidates.unplaced,
        **({} if (told := advice(entry)) is None else {"advice": told}),
        **steering,
        "newNodes": [
            {
                "group": f"{group.label}={group.group}",
                "nodes": group.nodes,
                "podsEach": group.pods_each,
                "starting": list(group.starting),
            }
            for group in entry.new_nodes
        ],
        "nodes": [
            {
                "name": node.name,
                "probability": round(node.probability, 4),
                "present": is_present(entry, node.name, known),
            }
            for node in candidates.nodes
        ],
        "rejected": [{"reason": reason.value, "nodes": number} for reason, number in candidates.rejected],
    }


def _skip(skip: Skip) -> Json:
    fields: dict[str, Json] = {"reason": skip.reason.value, "workload": str(skip.workload)}
    if skip.node:
        fields["node"] = skip.node
    if skip.image:
        fields["image"] = skip.image
    return fields
