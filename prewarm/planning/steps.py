"""Which landings are better decided later? Each step of a rollout shows where the next one goes."""

from collections.abc import Sequence

from msgspec.structs import replace

from prewarm.demand import far_ahead
from prewarm.model.plans import Batch, Trigger
from prewarm.placement import Choice, reachable, steerable_nodes, with_room
from prewarm.planning.drawing import PREDICTABLE
from prewarm.planning.landing import (
    IMMINENT_SECONDS,
    Landing,
    Scene,
    coming_at_once,
    expected_images,
    first_alone,
    pull_seconds,
)
from prewarm.planning.selection import LIKELY

SETTLING_SECONDS = 20.0
"""By then the pods of a step have nodes, and the old ones that go with it are told to."""
ENOUGH_PULLS = 3.0
"""What is decided then is still warm in time if so many pulls fit in one after the other: they wait for slots."""
CERTAIN = 0.97
"""A node that some pod takes in all replays, whatever comes first, need not wait: the rollout may be hurried on."""


def step_by_step(scene: Scene, where: Landing) -> Landing:
    """The same with the nodes whose landing the next step decides, if there is time enough to pull once it has.

    A canary's pause says when its pods come: until those of the step before have landed, and old ones have left for
    them, it is a toss which nodes have room.
    """
    first = _decided_now(scene, where)
    if first is None:
        return where
    alone = first_alone(scene, first) if first > len(coming_at_once(scene.demand, scene.now)) else None
    in_all = {node.name: node.probability for node in where.candidates.nodes}

    def soon(name: str) -> float:
        """Chance that a pod of the steps that are decided now lands there, beyond those that come at once."""
        if alone is None:
            return 0.0
        return alone.get(name, 0.0) - (in_all.get(name, 0.0) - where.chances[name])

    awaited = frozenset(
        name
        for name, chance in where.chances.items()
        if where.certain.get(name, 0.0) < CERTAIN and soon(name) < chance / 2
    )
    return replace(where, awaited=awaited)


def held_for(scene: Scene, where: Landing) -> Landing:
    """The same with the nodes that a held rollout waits for: those of the first batch, and such as have room already.

    On the others old pods have to leave first, and which ones do the first landings decide: what is not LIKELY there
    waits for these, if there is time for a pull then. Where nearly all landings are known, there is nothing to wait
    for.
    """
    where = replace(where, short=_is_short(scene))
    batches = scene.demand.batches
    if not where.chances or not batches or where.candidates.predictability >= PREDICTABLE:
        return where
    together = sum(batch.needed_at <= batches[0].needed_at + IMMINENT_SECONDS for batch in batches)
    alone = first_alone(scene, together) if together < len(batches) else where.chances
    open_now = with_room(scene.demand.template.shape, scene.snapshot, scene.cluster)
    first = where.chances.keys() & (alone.keys() | open_now)
    others = batches[together:]
    # Old pods that go with the first batch make room for the next one, which comes before a pull ordered then is done.
    at_once = bool(others) and others[0].leaving > 0
    if at_once or not _follow_slowly(others, batches[0].needed_at + pull_seconds(scene.demand, scene.history)):
        return replace(where, first=frozenset(first))
    unlikely = {name for name, chance in where.chances.items() if name not in first and chance < LIKELY}
    return replace(where, first=frozenset(first), awaited=where.awaited | unlikely)


def _is_short(scene: Scene) -> bool:
    """Whether the room that is there now is too little for all pods."""
    near = reachable(scene.demand, scene.snapshot, scene.cluster, scene.rivals)
    anywhere = Choice(frozenset(near.names), frozenset(), room_first=True)
    found = steerable_nodes(
        scene.demand, scene.snapshot, 0, anywhere, seed=scene.seed, images=expected_images(scene), cluster=near
    )
    return found.short > 0


def _follow_slowly(batches: Sequence[Batch], warm_at: float) -> bool:
    """Whether most of these pods come when a pull that is ordered with the first batch is done, or later."""
    late = sum(batch.pods for batch in batches if batch.needed_at >= warm_at)
    return late > sum(batch.pods for batch in batches) / 2


def _decided_now(scene: Scene, where: Landing) -> int | None:
    """How many batches come before a rest after which there is time to decide about what follows; None: all do."""
    demand, now = scene.demand, scene.now
    if demand.trigger is not Trigger.ROLLOUT or demand.is_fixed:
        return None
    enough = SETTLING_SECONDS + ENOUGH_PULLS * pull_seconds(demand, scene.history)
    before = now
    for index, batch in enumerate(demand.batches):
        # What waits for a person or an analysis may go on at any time.
        is_timed = not before < far_ahead(now) <= batch.needed_at
        in_time = is_timed and batch.needed_at - before >= enough
        if batch.after_rest and in_time and (index > 0 or _is_moving(scene, where)):
            return index
        before = max(now, batch.needed_at)
    return None


def _is_moving(scene: Scene, where: Landing) -> bool:
    """Whether the step that is on has still to show which old pods it lets go."""
    demand, pods = scene.demand, scene.snapshot.pods
    first = demand.batches[0]
    told = sum(key in pods and pods[key].deleted_at is not None for key in demand.leaving)
    return first.leaving > told or not where.settled
