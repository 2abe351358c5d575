"""Which landings are better decided later? Where a rollout rests, each step shows where the next one goes."""

from msgspec.structs import replace

from prewarm.demand import far_ahead
from prewarm.model.plans import Trigger
from prewarm.planning.landing import Landing, Scene, coming_at_once, first_alone, pull_seconds

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
