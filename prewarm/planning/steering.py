"""Can a demand's pods be steered, and to which nodes? The set is as large as the batches need, and no larger."""

from collections.abc import Callable, Collection, Mapping
from math import ceil

from msgspec.structs import replace

from prewarm.api.plan_annotation import planned_for
from prewarm.api.steer_label import entry_key, label_key, label_value
from prewarm.demand import pods_of_revision
from prewarm.model.image_caches import Policy
from prewarm.model.nodes import pull_obstacle
from prewarm.model.plans import Batch, Demand, SkipReason, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer, Steering, SteerState
from prewarm.placement import Choice, ClusterArrays, ExpectedImage, reachable
from prewarm.planning.landing import coming_at_once
from prewarm.planning.selection import LIKELY, UNLIKELY, UNPREDICTABLE, Prospect, Selection, settled, without_waste
from prewarm.planning.underway import Underway
from prewarm.planning.warm_set import Meeting, warm_set

STEERED_KINDS = frozenset(
    {"Deployment", "ReplicaSet", "StatefulSet", "Rollout", "CloneSet", "AdvancedStatefulSet", "CronJob", "Job"}
)
"""Whose pods the scheduler places, and the admission policy knows by their owner."""
_LEFT_OUT = frozenset({SkipReason.BEYOND_WASTE, SkipReason.BEYOND_OVERPROVISION, SkipReason.UNLIKELY})
"""Why a node is not pulled on after all, so that it never carries the label."""
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
    done: Underway,
    images: dict[str, ExpectedImage],
    cluster: ClusterArrays,
    seed: int,
    obstacle: SteerState | None,
    pull_seconds: float,
    held: bool,
) -> Steering | None:
    """Where the pods that come later are steered; None where the policy does not ask for it.

    Args:
        demand: pods to come.
        policy: that covers them.
        snapshot: the cluster now.
        is_warm: whether a node has all the images.
        done: our pulls of these images.
        images: as nodes will list them when the pods are scheduled.
        cluster: the nodes of the snapshot.
        seed: of the replay.
        obstacle: why nothing can be steered in this cluster, or not this demand; None if it can.
        pull_seconds: that a node takes for all images.
        held: whether the rollout waits for its nodes: then those are chosen, too, that are not likely, but may be used.
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
    near = reachable(demand, snapshot, cluster)
    among = frozenset(node.name for node in near.nodes if pull_obstacle(node) is None)
    warm = frozenset(name for name in among if is_warm(name))
    labelled = frozenset(node.name for node in near.nodes if node.labels.get(label) == value)
    occupied = frozenset(pod.node_name for pod in pods_of_revision(demand, snapshot))
    # A scale-out may never come: its nodes follow the room that there is.
    comes = demand.trigger is not Trigger.SCALE_OUT
    waiting = (done.idle & among) - occupied if comes else frozenset[str]()
    planned = planned_before(demand, snapshot) - occupied if comes else frozenset[str]()
    chosen = warm_set(
        demand,
        snapshot,
        _meeting(demand, snapshot.taken_at, labelled, labelled | (done.pulling & among), pull_seconds),
        Choice(among, warm | done.ours | labelled, waiting | planned),
        seed=seed,
        images=images,
        cluster=near,
        pull_seconds=pull_seconds,
        share=UNLIKELY if held else LIKELY,
    )
    # A pull that is done or under way cannot be taken back: pods are to come there, however scores have moved since.
    nodes = tuple(sorted({*chosen.later, *warm.intersection(chosen.every), *waiting}))
    first = len(coming_at_once(demand, snapshot.taken_at))
    needed = _needed(demand.batches[first:] or demand.batches, len(nodes))
    return Steering(SteerState.STEERED, nodes, needed, label, value, chosen.waits)


def _meeting(
    demand: Demand, now: float, labelled: frozenset[str], ready: frozenset[str], pull_seconds: float
) -> Meeting:
    """What the first pods meet: what carries the label now, and what will once the pulls under way are done."""
    imminent = len(coming_at_once(demand, now))
    soon = sum(batch.needed_at < now + pull_seconds for batch in demand.batches)
    return Meeting(imminent, max(imminent, soon), tuple(sorted(labelled)), tuple(sorted(ready)))


def planned_before(demand: Demand, snapshot: ClusterSnapshot) -> frozenset[str]:
    """Nodes that ImageCaches name which were planned for the demand's revision: their pulls may begin at any moment."""
    planned = planned_for(snapshot.image_caches.values(), demand.workload, demand.revision)
    return frozenset(node for cache, _ in planned for entry in cache.lists for node in entry.node_names or ())


def _needed(later: tuple[Batch, ...], nodes: int) -> int:
    """Half as many nodes as pods come at about the same time: two pods on a node are less harm than a cold start."""
    soon = sum(batch.pods for batch in later if batch.needed_at < later[0].needed_at + TOGETHER_SECONDS)
    return ceil(min(soon, nodes) / 2)


def steered(demand: Demand, to: Steering, snapshot: ClusterSnapshot) -> Demand:
    """The demand with what the admission policy adds to its pods, if it does: those at once meet the labels of now."""
    if to.state is not SteerState.STEERED:
        return demand
    first = len(coming_at_once(demand, snapshot.taken_at))
    labelled = tuple(sorted(name for name, node in snapshot.nodes.items() if node.labels.get(to.label) == to.value))
    return Meeting(first, first, labelled, labelled).met_by(demand, tuple(sorted({*to.nodes, *labelled})))


def is_outweighed(demand: Demand, to: Steering, later: int, chances: Mapping[str, float]) -> bool:
    """Whether most pods of a steered demand land elsewhere for all that.

    Judged by where they land, not by how far replays agree: the last pod has many warm nodes to choose from. Those
    whose nodes are chosen afterwards do not count.

    Args:
        demand: pods, and what they prefer.
        to: where they are steered.
        later: pods that a pull can help.
        chances: by node, that one of these lands there.
    """
    decided = later - to.waits
    if decided <= 0:
        return False
    preferred = {name for batch in demand.batches for name in batch.prefers}
    caught = sum(chance for name, chance in chances.items() if name in preferred)
    return caught < UNPREDICTABLE * decided / later * sum(chances.values())


def unless_withheld(to: Steering, withheld: SkipReason | None, selection: Selection) -> Steering:
    """What is left of it: nothing where nothing new is pulled, and no nodes that are neither warm nor pulled on."""
    if withheld is None:
        nodes = tuple(name for name in to.nodes if selection.reasons.get(name) not in _LEFT_OUT)
        return replace(to, nodes=nodes, needed=min(to.needed, ceil(len(nodes) / 2)))
    return Steering(SteerState.OUTWEIGHED if withheld is SkipReason.UNPREDICTABLE else SteerState.WITHHELD)


def select_steered(
    prospects: list[Prospect],
    to: Steering,
    pods: int,
    withheld: SkipReason | None,
    waste: float = 1.0,
    *,
    held: bool = False,
) -> Selection:
    """The nodes that pods are steered to, and those where we pulled already.

    No more are added than pods can use, unless all pods are to start warm: those that are warm for us and wait for
    their pod come first.

    Args:
        prospects: nodes where pods may land, and those where we pulled.
        to: where the pods are steered.
        pods: that a pull can help.
        withheld: why nothing new is pulled.
        waste: share of the pulls that may be expected to be in vain: where room is tight, who leaves decides.
        held: whether the rollout waits for its nodes.
    """
    nodes = frozenset(to.nodes)
    wanted_new = [
        one
        for one in prospects
        if one.name in nodes
        and one.probability >= UNLIKELY
        and settled(one) is None
        and not one.ours
        # Pods can be steered to others: none is worth a pull that would rather be in vain, unless all are to be warm.
        and (waste >= 1.0 or held or one.vain <= LIKELY)
    ]
    paying = without_waste(prospects, wanted_new, waste)
    waiting = sum(one.ours and not one.pod_pulls and one.probability >= UNLIKELY for one in prospects)
    chosen: set[str] = set()
    reasons: dict[str, SkipReason] = {}
    added = 0
    for prospect in sorted(prospects, key=lambda one: (-one.probability, one.name)):
        why = settled(prospect)
        if why is not None:
            reasons[prospect.name] = why
        wanted = prospect.name in nodes and prospect.probability >= UNLIKELY
        if prospect.ours or (wanted and why is SkipReason.ALREADY_PRESENT):
            chosen.add(prospect.name)
        elif why is None and prospect.name not in nodes:
            reasons[prospect.name] = SkipReason.UNSETTLED if to.waits else SkipReason.STEERED_ELSEWHERE
        elif why is None and (withheld is not None or not wanted):
            reasons[prospect.name] = withheld or SkipReason.UNLIKELY
        elif why is None and prospect.name not in paying:
            reasons[prospect.name] = SkipReason.BEYOND_WASTE
        elif why is None and not held and added >= pods - waiting:
            reasons[prospect.name] = SkipReason.BEYOND_OVERPROVISION
        elif why is None:
            chosen.add(prospect.name)
            added += 1
    return Selection(frozenset(chosen), reasons)
