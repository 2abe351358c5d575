"""One demand against the cluster: where its pods land, what is missing there, what is worth pulling."""

from collections.abc import Iterator, Mapping
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from prewarm.demand import never_pulled
from prewarm.history import DEFAULT_PULL_SECONDS, History
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.images import PullPolicy, parse_reference
from prewarm.model.nodes import pull_identity, pull_obstacle
from prewarm.model.plans import Candidates, Demand, DemandPlan, PlannedNode, Skip, SkipReason
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.placement import place
from prewarm.planning.selection import Limits, Prospect, is_unpredictable, new_nodes_allowed, select
from prewarm.planning.underway import Underway, underway
from prewarm.presence import Warmth

IMMINENT_SECONDS = 1.0
"""Pods that come within this time are on their nodes before a puller pod could be: nothing is pulled for them."""
SCHEDULING_SECONDS = 5.0
"""A pod without a node for longer than this is not about to get one."""
_NO_PODS: Mapping[ObjectKey, Pod] = {}


class Needs(Struct, frozen=True):
    """The images of a demand that can be pulled ahead, and how a node is asked for them."""

    images: tuple[str, ...]
    always: frozenset[str]
    identity: str

    def missing(self, warmth: Warmth, node: str) -> tuple[str, ...]:
        """Those that are not on a node, as written in the template."""
        return tuple(
            image
            for image in self.images
            if not warmth.is_warm(
                node,
                image,
                pull_identity=self.identity,
                pull_policy=PullPolicy.ALWAYS if image in self.always else PullPolicy.IF_NOT_PRESENT,
            )
        )


def plan_demand(
    demand: Demand, policy: Policy, snapshot: ClusterSnapshot, warmth: Warmth, history: History, seed: int
) -> DemandPlan:
    """Choose the nodes to warm for one demand; every candidate that is not pulled on carries a reason."""
    needs, skips = _needs(demand)
    imminent = sum(batch.pods for batch in demand.batches if batch.needed_at <= snapshot.taken_at + IMMINENT_SECONDS)
    candidates = place(demand, snapshot, seed=seed) if demand.pods else Candidates(())
    chances = _chances_after(demand, imminent, candidates, snapshot, seed)
    done = underway(snapshot, needs.images)
    prospects = _prospects(demand, chances, needs, done, snapshot, warmth)
    later = demand.pods - imminent
    limits = Limits(
        policy.coverage,
        new_nodes_allowed(later, policy.max_overprovision, len(done.idle)),
        sure=max(0, ceil(later / 2) - len(done.idle)) if imminent or _being_scheduled(demand, snapshot) else None,
    )
    probabilities = [prospect.probability for prospect in prospects]
    largest = new_nodes_allowed(later, policy.max_overprovision, 0)
    unpredictable = is_unpredictable(probabilities, largest, candidates.predictability)
    selection = select(prospects, limits, unpredictable=unpredictable)
    chosen = [prospect for prospect in prospects if prospect.name in selection.chosen]
    late = [node.name for node in candidates.nodes if node.name not in {p.name for p in prospects}]
    return DemandPlan(
        demand=demand,
        candidates=candidates,
        nodes=tuple(
            PlannedNode(prospect.name, prospect.probability, _to_pull(prospect))
            for prospect in sorted(chosen, key=lambda prospect: _order(prospect, demand, snapshot.taken_at, history))
        ),
        skips=(
            *skips,
            *(Skip(reason, demand.workload, node=node) for node, reason in sorted(selection.reasons.items())),
            *(Skip(SkipReason.TOO_LATE, demand.workload, node=node) for node in sorted(late)),
        ),
        shadow=policy.mode is PolicyMode.SHADOW,
    )


def _needs(demand: Demand) -> tuple[Needs, tuple[Skip, ...]]:
    shape = demand.template.shape
    never = never_pulled(shape)
    skips: list[Skip] = []
    usable: list[str] = []
    for image in demand.images:
        if image in never:
            skips.append(Skip(SkipReason.PULL_POLICY_NEVER, demand.workload, image=image))
            continue
        try:
            parse_reference(image)
        except ValueError:
            skips.append(Skip(SkipReason.INVALID_IMAGE, demand.workload, image=image))
            continue
        usable.append(image)
    always = frozenset(c.image for c in shape.containers if c.pull_policy is PullPolicy.ALWAYS)
    identity = pull_identity(demand.workload.namespace, shape.service_account, shape.pull_secrets)
    return Needs(tuple(usable), always, identity), tuple(skips)


def _chances_after(
    demand: Demand, imminent: int, candidates: Candidates, snapshot: ClusterSnapshot, seed: int
) -> dict[str, float]:
    """Probability by node that a pod lands there for which a pull can still be ahead.

    Where a pod that comes at once lands, the image is pulled by it. Both placements replay the same choices, so the
    difference of "any pod" and "any of the first" is the share of replays in which only later ones land there.
    """
    chances = {node.name: node.probability for node in candidates.nodes}
    if not imminent or not chances:
        return chances
    if imminent == demand.pods:
        return {}
    soon = tuple(batch for batch in demand.batches if batch.needed_at <= snapshot.taken_at + IMMINENT_SECONDS)
    first = place(replace(demand, batches=soon), snapshot, seed=seed)
    for node in first.nodes:
        if node.name in chances:
            chances[node.name] -= node.probability
    return {name: chance for name, chance in chances.items() if chance > 1e-9}


def _prospects(
    demand: Demand,
    chances: Mapping[str, float],
    needs: Needs,
    done: Underway,
    snapshot: ClusterSnapshot,
    warmth: Warmth,
) -> list[Prospect]:
    if not needs.images:
        return []
    occupied = frozenset(pod.node_name for pod in _pods_of_revision(demand, snapshot))
    names = [name for name in {**chances, **dict.fromkeys(sorted(done.ours))} if name in snapshot.nodes]
    return [
        Prospect(
            name=name,
            probability=chances.get(name, 0.0),
            missing=needs.missing(warmth, name),
            obstacle=pull_obstacle(snapshot.nodes[name]),
            ours=name in done.ours,
            pod_pulls=name in occupied,
        )
        for name in names
    ]


def _pods_of_revision(demand: Demand, snapshot: ClusterSnapshot) -> Iterator[Pod]:
    """Pods of the wanted revision that exist and stay."""
    for replica_set in snapshot.replica_sets_by_owner.get(demand.workload_uid, {}).values():
        if replica_set.template_hash == demand.revision:
            for pod in snapshot.pods_by_owner.get(replica_set.uid, _NO_PODS).values():
                if not pod.finished and pod.deleted_at is None:
                    yield pod


def _being_scheduled(demand: Demand, snapshot: ClusterSnapshot) -> bool:
    """Whether pods of the wanted revision are about to get a node; those that found none for a while do not count."""
    return any(
        not pod.node_name and snapshot.taken_at - pod.created_at < SCHEDULING_SECONDS
        for pod in _pods_of_revision(demand, snapshot)
    )


def _to_pull(prospect: Prospect) -> tuple[str, ...]:
    return () if prospect.obstacle is not None or (prospect.pod_pulls and not prospect.ours) else prospect.missing


def _order(prospect: Prospect, demand: Demand, now: float, history: History) -> tuple[bool, float, float, str]:
    """Nodes to pull on by falling value, then warm ones by falling probability.

    value = probability x min(pull / lead, lead / pull), with the seconds that pulling what is missing takes and the
    seconds until the first pod comes that it can help. It peaks where the pull just fits: with more lead it can wait,
    with less it saves only the lead. What is partly there takes shorter and can wait longer.
    """
    missing = _to_pull(prospect)
    if not missing:
        return (True, 0.0, -prospect.probability, prospect.name)
    pull = max(0.1, sum(history.pull_seconds(image, prospect.name) or DEFAULT_PULL_SECONDS for image in missing))
    later = [batch.needed_at for batch in demand.batches if batch.needed_at > now + IMMINENT_SECONDS]
    lead = max(IMMINENT_SECONDS, min(later, default=now) - now)
    value = prospect.probability * min(pull / lead, lead / pull)
    return (False, -round(value, 9), -prospect.probability, prospect.name)
