"""One demand against the cluster: where its pods land, what is missing there, what is worth pulling."""

from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from prewarm.demand import hold, never_pulled, pods_of_revision
from prewarm.history import History
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.images import PullPolicy, parse_reference
from prewarm.model.nodes import pull_identity, pull_obstacle
from prewarm.model.plans import Demand, DemandPlan, PlannedNode, Skip, SkipReason, Trigger
from prewarm.model.quantities import int_or_percent
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steering, SteerState
from prewarm.placement import ClusterArrays
from prewarm.planning.drawing import PREDICTABLE, landing_or_drawn
from prewarm.planning.evidence import tempered
from prewarm.planning.landing import (
    IMMINENT_SECONDS,
    Landing,
    Scene,
    expected_images,
    first_later,
    landing,
    pull_seconds,
)
from prewarm.planning.selection import (
    ONE_IN_VAIN,
    TWO_IN_VAIN,
    Limits,
    Prospect,
    Selection,
    is_unpredictable,
    new_nodes_allowed,
    select,
)
from prewarm.planning.steering import is_outweighed, select_steered, steered, steering, unless_withheld
from prewarm.planning.steps import held_for, step_by_step
from prewarm.planning.underway import Done, Underway
from prewarm.presence import Warmth

_ONE_REVISION = frozenset({Trigger.ROLLOUT, Trigger.ANNOUNCED, Trigger.WHAT_IF})
"""Whose pods come once: a node that none of them takes was warmed in vain. Where pods come and go, as with an
autoscaler or a CronJob, the next ones may take it."""


LAST_TOSSES = 1.25
"""Where only the last few pods toss, a quarter more than the policy's maxWaste may be in vain: of two tosses that cost
the same, it is the cold pod that is noticed."""
PATIENCE = 2.0
"""Where a rollout is held until nodes are warm, and it is not that well known which, or old pods have to make room for
its last ones, so many times the policy's maxWaste may be in vain."""


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
    demand: Demand,
    policy: Policy,
    snapshot: ClusterSnapshot,
    warmth: Warmth,
    history: History,
    *,
    cluster: ClusterArrays,
    pulls: Done,
    seed: int,
    unsteerable: SteerState | None = None,
    rivals: tuple[Demand, ...] = (),
) -> DemandPlan:
    """Choose the nodes to warm for one demand; every candidate that is not pulled on carries a reason.

    `unsteerable`: why its pods cannot be steered, whatever the policy says.
    """
    needs, skips = _needs(demand)
    # Pulling the sidecar of a mesh for somebody else says nothing about where these pods will be.
    own = [image for image in needs.images if image not in demand.injected]
    done = pulls.underway(own or needs.images)
    scene = Scene(demand, snapshot, history, done, cluster, seed, rivals)
    to = steering(
        demand,
        policy,
        snapshot,
        is_warm=lambda node: not needs.missing(warmth, node),
        done=done,
        images=expected_images(scene),
        cluster=cluster,
        seed=seed,
        obstacle=unsteerable,
        pull_seconds=pull_seconds(demand, history),
        held=_is_held(demand, snapshot),
    )
    coming = steered(demand, to, snapshot) if to is not None else demand
    if to is not None and to.state is SteerState.STEERED:
        where, drawn = landing(replace(scene, demand=coming)), False
    else:
        where, drawn = landing_or_drawn(
            scene, is_warm=lambda node: not needs.missing(warmth, node), waits=_is_held(demand, snapshot)
        )
        where = where if drawn else step_by_step(scene, where)
        where = held_for(scene, where) if _is_held(demand, snapshot) else where
    occupied = frozenset(pod.node_name for pod in pods_of_revision(demand, snapshot))
    prospects = _prospects(where, needs, done, snapshot, warmth, occupied)
    # Where a pod of the revision is bound, a pull is used though no container has started yet.
    idle = len(done.idle - occupied)
    selection, to = _choose(coming, to, policy, snapshot, where, prospects, idle)
    chosen = [prospect for prospect in prospects if prospect.name in selection.chosen]
    weighed = frozenset(prospect.name for prospect in prospects)
    late = sorted(node.name for node in where.candidates.nodes if needs.images and node.name not in weighed)
    return DemandPlan(
        demand=demand,
        candidates=where.candidates,
        nodes=tuple(
            PlannedNode(prospect.name, prospect.probability, _to_pull(prospect))
            for prospect in _in_order(chosen, demand, snapshot.taken_at, history)
        ),
        skips=(
            *skips,
            *(Skip(reason, demand.workload, node=node) for node, reason in sorted(selection.reasons.items())),
            *(Skip(SkipReason.TOO_LATE, demand.workload, node=node) for node in late),
        ),
        shadow=policy.mode is PolicyMode.SHADOW,
        new_nodes=where.new_nodes,
        steering=to,
        hold_seconds=policy.hold_seconds or None,
        drawn=drawn,
    )


def _choose(
    demand: Demand,
    to: Steering | None,
    policy: Policy,
    snapshot: ClusterSnapshot,
    where: Landing,
    prospects: list[Prospect],
    idle: int,
) -> tuple[Selection, Steering | None]:
    """The nodes to warm, and what becomes of the steering.

    `idle`: nodes where we pulled and nothing has used it yet.
    """
    if to is not None and to.state is SteerState.STEERED:
        unpredictable = is_outweighed(demand, to, where.later, where.chances)
    else:
        largest = new_nodes_allowed(where.later, policy.max_overprovision, 0)
        unpredictable = is_unpredictable([*where.chances.values()], largest, where.candidates.predictability) or (
            demand.template.shape.foreign_scheduler and not demand.is_fixed and len(where.candidates.nodes) > 1
        )
    withheld = (
        demand.withheld or _withheld(demand, policy, snapshot) or (SkipReason.UNPREDICTABLE if unpredictable else None)
    )
    if to is not None and to.state is SteerState.STEERED:
        waste = policy.max_waste if demand.trigger in _ONE_REVISION else 1.0
        chosen = select_steered(prospects, to, where.later, withheld, waste, held=_is_held(demand, snapshot))
        return chosen, unless_withheld(to, withheld, chosen)
    limits = Limits(
        policy.coverage,
        new_nodes_allowed(where.later, policy.max_overprovision, idle),
        early=None if where.settled else max(0, ceil(where.later / 2) - idle),
    )
    held = _is_held(demand, snapshot)
    if held:
        # Who asked for a gate waits so that all pods start warm.
        limits = replace(limits, coverage=1.0)
    if demand.trigger in _ONE_REVISION:
        limits = _thrifty(limits, policy.max_waste, where, held=held)
    return select(prospects, limits, withheld=withheld), to


def _thrifty(limits: Limits, waste: float, where: Landing, *, held: bool) -> Limits:
    """The same, with a bound on what may be in vain."""
    known = where.candidates.predictability >= PREDICTABLE
    times = LAST_TOSSES if known else 1.0
    if held and (where.short or not known):
        times = PATIENCE
    return replace(limits, waste=min(1.0, times * waste), few=TWO_IN_VAIN if known else ONE_IN_VAIN)


def _is_held(demand: Demand, snapshot: ClusterSnapshot) -> bool:
    """Whether the gate holds the rollout."""
    workload = snapshot.workloads.get(demand.workload)
    held = hold(workload) if workload is not None else None
    return held is not None and held.in_force


def _withheld(demand: Demand, policy: Policy, snapshot: ClusterSnapshot) -> SkipReason | None:
    """Whether a rollout has still to show that its new pods become ready before their image spreads.

    Raises:
        ValueError: if the policy's minUpdatedReadyPods cannot be read.
    """
    if demand.trigger is not Trigger.ROLLOUT or not policy.min_updated_ready_pods:
        return None
    updated = list(pods_of_revision(demand, snapshot))
    total = len(updated) + demand.pods
    asked = min(total, int_or_percent(policy.min_updated_ready_pods, total, round_up=True))
    ready = sum(pod.ready_at is not None for pod in updated)
    return SkipReason.AWAITING_READY_PODS if ready < asked else None


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


def _prospects(
    where: Landing,
    needs: Needs,
    done: Underway,
    snapshot: ClusterSnapshot,
    warmth: Warmth,
    occupied: frozenset[str],
) -> list[Prospect]:
    """Nodes where pods may land in time, and those where we pulled; none if nothing of the demand can be pulled.

    `occupied` are nodes with a pod of the revision.
    """
    if not needs.images:
        return []
    used = tempered(where.certain, where.replays)
    worth = (done.ours - done.idle) | occupied
    names = [name for name in {**where.chances, **dict.fromkeys(sorted(done.ours))} if name in snapshot.nodes]
    return [
        Prospect(
            name=name,
            probability=where.chances.get(name, 0.0),
            certain=where.certain.get(name, 0.0),
            missing=needs.missing(warmth, name),
            obstacle=pull_obstacle(snapshot.nodes[name]),
            ours=name in done.ours,
            pod_pulls=name in occupied,
            vain=0.0 if name in worth else 1.0 - used.get(name, 0.0),
            awaited=name in where.awaited,
            first=name in where.first,
        )
        for name in names
    ]


def _to_pull(prospect: Prospect) -> tuple[str, ...]:
    return () if prospect.obstacle is not None or (prospect.pod_pulls and not prospect.ours) else prospect.missing


def _in_order(chosen: list[Prospect], demand: Demand, now: float, history: History) -> list[Prospect]:
    """By value; equals as the demand names its nodes, then by name."""
    turns = {name: turn for turn, name in enumerate(name for batch in demand.batches for name in batch.nodes)}

    def order(prospect: Prospect) -> tuple[tuple[bool, float, float], int, str]:
        return (_order(prospect, demand, now, history), turns.get(prospect.name, 0), prospect.name)

    return sorted(chosen, key=order)


def _order(prospect: Prospect, demand: Demand, now: float, history: History) -> tuple[bool, float, float]:
    """Nodes to pull on by falling value, then warm ones by falling probability.

    value = probability x min(pull / lead, lead / pull), with the seconds that pulling what is missing takes and the
    seconds until the first pod comes that it can help. It peaks where the pull just fits: with more lead it can wait,
    with less it saves only the lead. What is partly there takes shorter and can wait longer.
    """
    missing = _to_pull(prospect)
    if not missing:
        return (True, 0.0, -prospect.probability)
    pull = max(0.1, sum(history.expected_pull_seconds(image, prospect.name) for image in missing))
    lead = max(IMMINENT_SECONDS, first_later(demand, now) - now)
    value = prospect.probability * min(pull / lead, lead / pull)
    return (False, -round(value, 9), -prospect.probability)
