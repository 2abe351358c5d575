"""Which candidates are worth a pull? The smallest set that reaches the policy's coverage, and why not the others."""

from collections.abc import Mapping
from math import ceil

from msgspec import Struct

from prewarm.model.nodes import NodeState
from prewarm.model.plans import SkipReason

EARLY_USED, EARLY_HELPED = 0.6, 0.3
"""Before the first burst has landed, a node is worth a pull if some pod takes it with the first probability, and with
the second one that the pull can help. A plan that knows where the burst landed goes down to less likely nodes."""
LIKELY = 0.5
"""A node more likely used than not is worth its pull, even beyond coverage."""
UNLIKELY = 0.05
"""A node is not worth a pull that would be used less than once in twenty."""
UNPREDICTABLE = 0.5
"""If even the largest allowed set catches fewer pods than it misses, and two replays of the scheduler agree on less
than half of the pods, pulling is guessing: on 300 equal nodes one in eight pods would be caught."""

ONE_IN_VAIN, TWO_IN_VAIN = 1.25, 2.25
"""So many pulls may be in vain whatever their share, unless none may: where a pod chooses between two nodes, one is,
and a little more as far as replays tell. Two where the scheduler repeats itself and only the last pods toss."""
WORTHWHILE = 0.25
"""Where most landings are unknown, the few nodes that are certain are left alone, too, if they catch no larger share:
nearly all pods start cold either way, and of a handful of pulls a single one in vain is a large share."""
_ROUNDING = 1e-9

OBSTACLES = {
    NodeState.LEAVING: SkipReason.NODE_LEAVING,
    NodeState.NOT_READY: SkipReason.NODE_NOT_READY,
    NodeState.CORDONED: SkipReason.NODE_CORDONED,
    NodeState.DISK_PRESSURE: SkipReason.NODE_DISK_PRESSURE,
    NodeState.VIRTUAL: SkipReason.NODE_VIRTUAL,
    NodeState.OPERATING_SYSTEM: SkipReason.NODE_OPERATING_SYSTEM,
    NodeState.TAINTED: SkipReason.NODE_TAINTED,
}


class Prospect(Struct, frozen=True):
    """A node where pods may land, and what stands there already."""

    name: str
    probability: float
    """That a pod lands there which a pull ordered now can help."""
    missing: tuple[str, ...]
    """Images to pull; empty if the node is warm."""
    certain: float = 0.0
    """That any pod lands there, also one that comes at once, however what is just being decided turns out."""
    obstacle: NodeState | None = None
    ours: bool = False
    """We pulled there for these images already, or are pulling."""
    pod_pulls: bool = False
    """A pod of the workload's revision is bound there and pulls whatever is missing."""
    vain: float = 0.0
    """Chance that what is or was pulled there is of no use to any pod of the demand."""
    awaited: bool = False
    """Whether it is known better, in time for a pull, once the pods before those that may land there have landed."""
    first: bool = False
    """Whether a held rollout waits for it in any case, whatever may be in vain."""


class Limits(Struct, frozen=True):
    """How far to go."""

    coverage: float
    """Share of the expected landings to catch."""
    nodes: int
    """Nodes that may newly be warmed."""
    waste: float = 1.0
    """Share of the pulls that may be expected to be in vain, earlier ones for the same images included."""
    few: float = ONE_IN_VAIN
    """So many may be in vain whatever their share, unless `waste` is 0."""
    early: int | None = None
    """While pods are just being scheduled: so many nodes at most, and only likely ones; None = all is settled."""


class Selection(Struct, frozen=True):
    """Chosen nodes and the reasons of all others, by node name."""

    chosen: frozenset[str]
    reasons: Mapping[str, SkipReason]
    """Of nodes without a pull: also of chosen ones that need none."""


def new_nodes_allowed(pods: int, max_overprovision: float, idle: int) -> int:
    """Nodes that may newly be warmed for pods to come, given those that were and are not used yet."""
    return max(0, ceil(pods * max_overprovision - 1e-9) - idle)


def is_unpredictable(probabilities: list[float], nodes: int, predictability: float) -> bool:
    """Whether the largest allowed set of nodes would miss most pods because the scheduler does not repeat itself."""
    expected = sum(probabilities)
    if expected <= 0 or predictability >= UNPREDICTABLE:
        return False
    reached = sum(sorted(probabilities, reverse=True)[:nodes])
    return reached < UNPREDICTABLE * expected


def select(prospects: list[Prospect], limits: Limits, *, withheld: SkipReason | None = None) -> Selection:
    """Choose nodes.

    What is warm, pulled by us or being pulled stays chosen and counts as covered; so does, without being chosen, where
    a pod of the revision pulls. New nodes follow, those to wait for `first`, then by falling probability, until
    coverage is reached; those that are LIKELY are taken beyond it; never more than allowed, none but the `first` ones
    that would bring too many pulls in vain, and none for a reason to withhold all.
    """
    weighed = [prospect for prospect in prospects if not _waits(prospect)]
    ordered = sorted(weighed, key=lambda prospect: (not prospect.first, -prospect.probability, prospect.name))
    target = limits.coverage * sum(prospect.probability for prospect in ordered) - 1e-9
    chosen: set[str] = set()
    reasons = {prospect.name: withheld or SkipReason.UNSETTLED for prospect in prospects if _waits(prospect)}
    fresh: list[Prospect] = []
    covered = 0.0
    for prospect in ordered:
        why = settled(prospect)
        if why is not None:
            reasons[prospect.name] = why
        if why is SkipReason.PULLED_BY_POD and not prospect.ours:
            covered += prospect.probability
        elif prospect.ours or (why is SkipReason.ALREADY_PRESENT and _worth_listing(prospect)):
            chosen.add(prospect.name)
            covered += prospect.probability
        elif why is None:
            fresh.append(prospect)
    added = 0
    paying, wasteful = _paying(ordered, fresh, covered, limits)
    for prospect in fresh:
        if withheld is not None:
            reasons[prospect.name] = withheld
        elif prospect.probability < UNLIKELY:
            reasons[prospect.name] = SkipReason.UNLIKELY
        elif limits.early is not None and not (_is_likely_early(prospect) and added < limits.early):
            reasons[prospect.name] = SkipReason.UNSETTLED
        elif covered >= target and prospect.probability < LIKELY:
            reasons[prospect.name] = SkipReason.BEYOND_COVERAGE
        elif not prospect.first and prospect.name not in paying:
            reasons[prospect.name] = wasteful
        elif added >= limits.nodes:
            reasons[prospect.name] = SkipReason.BEYOND_OVERPROVISION
        else:
            chosen.add(prospect.name)
            covered += prospect.probability
            added += 1
    return Selection(frozenset(chosen), reasons)


def _paying(
    prospects: list[Prospect], fresh: list[Prospect], covered: float, limits: Limits
) -> tuple[frozenset[str], SkipReason]:
    """New nodes that can be pulled on without too many pulls in vain, and why the others cannot.

    Where these catch fewer landings than they miss, only such are left that keep to the share each by itself: the
    demand is unpredictable, and there is nothing that an uncertain pull would complete. If they are not WORTHWHILE,
    none is.
    """
    expected = sum(prospect.probability for prospect in prospects)

    def caught(names: frozenset[str]) -> float:
        return covered + sum(one.probability for one in fresh if one.first or one.name in names)

    paying = without_waste(prospects, fresh, limits.waste, limits.few)
    if caught(paying) >= UNPREDICTABLE * expected:
        return paying, SkipReason.BEYOND_WASTE
    alone = frozenset(prospect.name for prospect in fresh if prospect.vain <= limits.waste + _ROUNDING)
    return (alone if caught(alone) >= WORTHWHILE * expected else frozenset()), SkipReason.UNPREDICTABLE


def without_waste(
    prospects: list[Prospect], fresh: list[Prospect], waste: float, few: float = ONE_IN_VAIN
) -> frozenset[str]:
    """The likeliest used of new nodes, while no more than a share of all pulls is expected to be in vain.

    Earlier pulls count, and those that are made in any case; `few` may be in vain whatever their share.
    """
    made = [prospect for prospect in prospects if prospect.ours or (prospect.first and settled(prospect) is None)]
    vain = sum(prospect.vain for prospect in made)
    pulls = len(made)
    paying: list[str] = []
    others = (prospect for prospect in fresh if not prospect.first)
    for prospect in sorted(others, key=lambda prospect: (prospect.vain, prospect.name)):
        vain, pulls = vain + prospect.vain, pulls + 1
        allowed = max(waste * pulls, few if waste else 0.0)
        if prospect.vain > waste + _ROUNDING and vain > allowed + _ROUNDING:
            break
        paying.append(prospect.name)
    return frozenset(paying)


def _waits(prospect: Prospect) -> bool:
    """Whether a node that would be pulled on is decided about later."""
    return prospect.awaited and not prospect.ours and settled(prospect) is None


def _worth_listing(prospect: Prospect) -> bool:
    """Whether a warm node is part of the set in force."""
    return prospect.probability >= UNLIKELY and prospect.obstacle is None


def _is_likely_early(prospect: Prospect) -> bool:
    """Whether a pull is worth it however what is just being decided turns out."""
    return prospect.certain >= EARLY_USED and prospect.probability >= EARLY_HELPED


def settled(prospect: Prospect) -> SkipReason | None:
    """Why a node needs no decision; None if a pull there is to be weighed."""
    if not prospect.missing:
        return SkipReason.ALREADY_PRESENT
    if prospect.obstacle is not None:
        return OBSTACLES[prospect.obstacle]
    if prospect.pod_pulls:
        return SkipReason.PULLED_BY_POD
    return None
