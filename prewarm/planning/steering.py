"""Can a demand's pods be steered, and to which nodes? The set is as large as the batches need, and no larger."""

from collections.abc import Callable, Collection
from math import ceil

from msgspec.structs import replace

from prewarm.api.steer_label import entry_key, label_key, label_value
from prewarm.model.image_caches import Policy
from prewarm.model.nodes import pull_obstacle
from prewarm.model.plans import Batch, Demand, SkipReason, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer, Steering, SteerState
from prewarm.placement import Choice, ClusterArrays, ExpectedImage, reachable, steerable_nodes
from prewarm.planning.landing import coming_at_once
from prewarm.planning.selection import UNLIKELY, Prospect, Selection, settled

STEERED_KINDS = frozenset(
    {"Deployment", "ReplicaSet", "StatefulSet", "Rollout", "CloneSet", "AdvancedStatefulSet", "CronJob", "Job"}
)
"""Whose pods the scheduler places, and the admission policy knows by their owner."""
_ORDER = (Trigger.WHAT_IF, Trigger.ROLLOUT, Trigger.ANNOUNCED, Trigger.SCHEDULED, Trigger.SCALE_OUT)
"""A node carries one revision for a workload: of several demands, the first of these is steered."""


TOGETHER_SECONDS = 5.0
"""Pods that come within this time would be crowded on the few nodes that are labelled first."""


def steered_first(demands: Collection[Demand]) -> Demand | None:
    """The one among a workload's demands whose pods are steered, if any's are."""
    ranked = [demand for demand in demands if demand.trigger in _ORDER]
    return min(ranked, key=lambda demand: _ORDER.index(demand.trigger), default=None)


def steering(
    demand: Demand,
    policy: Policy,
    snapshot: ClusterSnapshot,
    *,
    is_warm: Callable[[str], bool],
    ours: Collection[str],
    images: dict[str, ExpectedImage],
    cluster: ClusterArrays,
    seed: int,
    obstacle: SteerState | None,
) -> Steering | None:
    """Where the pods that come later are steered; None where the policy does not ask for it.

    Args:
        demand: pods to come.
        policy: that covers them.
        snapshot: the cluster now.
        is_warm: whether a node has all the images.
        ours: nodes where we pulled for these images, or are pulling.
        images: as nodes will list them when the pods are scheduled.
        cluster: the nodes of the snapshot.
        seed: of the replay.
        obstacle: why nothing can be steered in this cluster, or not this demand; None if it can.
    """
    if policy.steer is not Steer.PREFER:
        return None
    shape = demand.template.shape
    if demand.is_fixed or shape.node_name or demand.workload.kind not in STEERED_KINDS:
        return Steering(SteerState.NODES_FIXED)
    if shape.foreign_scheduler:
        return Steering(SteerState.OTHER_SCHEDULER)
    if obstacle is not None:
        return Steering(obstacle)
    if entry_key(demand.workload) is None:
        return Steering(SteerState.NAME_TOO_LONG)
    label, value = label_key(demand.workload), label_value(demand.revision)
    first = len(coming_at_once(demand, snapshot.taken_at))
    near = reachable(demand, snapshot, cluster)
    among = frozenset(node.name for node in near.nodes if pull_obstacle(node) is None)
    liked = frozenset(
        node.name for node in near.nodes if node.name in ours or node.labels.get(label) == value or is_warm(node.name)
    )
    nodes = steerable_nodes(demand, snapshot, first, Choice(among, liked), seed=seed, images=images, cluster=near)
    return Steering(SteerState.STEERED, nodes, _needed(demand.batches[first:], len(nodes)), label, value)


def _needed(later: tuple[Batch, ...], nodes: int) -> int:
    """Half as many nodes as pods come at about the same time: two pods on a node are less harm than a cold start."""
    soon = sum(batch.pods for batch in later if batch.needed_at < later[0].needed_at + TOGETHER_SECONDS)
    return ceil(min(soon, nodes) / 2)


def steered(demand: Demand, to: Steering, snapshot: ClusterSnapshot) -> Demand:
    """The demand with what the admission policy adds to the pods that come later."""
    first = len(coming_at_once(demand, snapshot.taken_at))
    labelled = (name for name, node in snapshot.nodes.items() if node.labels.get(to.label) == to.value)
    nodes = tuple(sorted({*to.nodes, *labelled}))
    batches = (*demand.batches[:first], *(replace(batch, prefers=nodes) for batch in demand.batches[first:]))
    return replace(demand, batches=batches)


def narrowed(to: Steering, chosen: Collection[str], withheld: SkipReason | None) -> Steering:
    """What is left of it once the nodes to warm are chosen."""
    nodes = tuple(name for name in to.nodes if name in chosen)
    if withheld is not None and not nodes:
        outweighed = withheld is SkipReason.UNPREDICTABLE
        return Steering(SteerState.OUTWEIGHED if outweighed else SteerState.WITHHELD)
    return replace(to, nodes=nodes, needed=min(to.needed, len(nodes)))


def select_steered(prospects: list[Prospect], nodes: Collection[str], withheld: SkipReason | None) -> Selection:
    """The nodes that pods are steered to, and those where we pulled already."""
    chosen: set[str] = set()
    reasons: dict[str, SkipReason] = {}
    for prospect in prospects:
        name, wanted = prospect.name, prospect.name in nodes and prospect.probability >= UNLIKELY
        why = settled(prospect)
        if why is not None:
            reasons[name] = why
            if prospect.ours or (wanted and why is SkipReason.ALREADY_PRESENT):
                chosen.add(name)
        elif prospect.ours:
            chosen.add(name)
        elif name not in nodes:
            reasons[name] = SkipReason.STEERED_ELSEWHERE
        elif not wanted:
            reasons[name] = SkipReason.UNLIKELY
        elif withheld is not None:
            reasons[name] = withheld
        else:
            chosen.add(name)
    return Selection(frozenset(chosen), reasons)
