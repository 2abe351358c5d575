"""Which nodes are to be warm for pods that are steered? Room that is there first, then that of old pods that leave."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from prewarm.demand import MAX_BATCHES
from prewarm.model.plans import Batch, Demand
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import Choice, ClusterArrays, ExpectedImage, Steerable, steerable_nodes
from prewarm.planning.landing import EARLY_REPLAYS, REPLAYS, WIDE

ORDERED_SECONDS = 2.0
"""From an old pod's being told to go until a pull is under way on its node."""


class Meeting(Struct, frozen=True):
    """What the pods meet that come before a pull ordered now is done."""

    imminent: int
    """Batches that come at once."""
    soon: int
    """Batches that come before such a pull is done, the imminent ones included."""
    labelled: tuple[str, ...]
    """Nodes that carry the label."""
    ready: tuple[str, ...]
    """Those that will soon, too: they pull."""

    def met_by(self, demand: Demand, nodes: Sequence[str] = ()) -> Demand:
        """The demand whose pods prefer what carries the label when they come, and later ones `nodes`."""
        first, soon, later = (
            demand.batches[: self.imminent],
            demand.batches[self.imminent : self.soon],
            demand.batches[self.soon :],
        )
        return replace(
            demand,
            batches=(*_prefer(first, self.labelled), *_prefer(soon, self.ready), *_prefer(later, nodes)),
        )


class WarmSet(Struct, frozen=True):
    """The nodes that are to be warm, and for how many pods they are chosen later."""

    later: tuple[str, ...]
    """Where pods go that a pull can help."""
    every: tuple[str, ...]
    """Where any pod goes."""
    waits: int = 0
    """Pods that take the room of old ones, of which it will be known in time which go."""


def warm_set(
    demand: Demand,
    snapshot: ClusterSnapshot,
    meeting: Meeting,
    choice: Choice,
    *,
    seed: int,
    images: dict[str, ExpectedImage],
    cluster: ClusterArrays,
    pull_seconds: float,
    share: float,
) -> WarmSet:
    """Choose nodes as the scheduler would spread the pods, so that there is room on them when the pods come.

    A label draws a pod wherever there is room, so what has room now is certain to be of use. Beyond that old pods have
    to leave. Where a pull still fits between the moment at which they are told to and the pod that takes their room,
    their nodes are chosen then; where it does not, those are that a `share` of the replays choose.
    """

    def choose(coming: Demand, among: Choice, replays: int = 1) -> Steerable:
        return steerable_nodes(
            meeting.met_by(coming),
            snapshot,
            meeting.imminent,
            replace(among, room_first=True),
            seed=seed,
            images=images,
            cluster=cluster,
            replays=replays,
            share=share,
        )

    found = choose(demand, choice)
    gone = max(told(demand, snapshot), demand.leaving_first)
    if not found.short or gone >= len(demand.leaving):
        return WarmSet(found.later, found.every)
    urgent = urgent_pods(demand, gone, found.short, pull_seconds + ORDERED_SECONDS)
    waits = found.short - urgent
    if not urgent:
        return WarmSet(found.in_room, found.every, waits)
    there = replace(choice, kept=choice.kept | set(found.in_room))
    likely = choose(without_last(demand, waits), there, REPLAYS if cluster.count <= WIDE else EARLY_REPLAYS)
    return WarmSet(tuple(sorted({*found.in_room, *likely.later})), tuple(sorted({*found.every, *likely.every})), waits)


def told(demand: Demand, snapshot: ClusterSnapshot) -> int:
    """How many of the leaving pods were told to go."""
    return sum(key in snapshot.pods and snapshot.pods[key].deleted_at is not None for key in demand.leaving)


def urgent_pods(demand: Demand, gone: int, short: int, enough: float) -> int:
    """Of the last pods, which take the room of old ones, how many come too soon to wait until these are known.

    Nobody knows when pods come that are counted into the last batch of many, nor whose room those take that are more
    than old pods leave: neither is urgent.

    Args:
        demand: pods to come; its batches count the old pods that have left before each.
        gone: of them, how many are known already.
        short: so many of the last pods take the room of others, one each.
        enough: seconds from an old pod's being told until its node is warm.
    """
    comes: list[tuple[float, int]] = []
    known: list[tuple[float, int]] = []
    rests = 0
    before = (demand.batches[0].needed_at, 0)
    timed = demand.batches[:-1] if len(demand.batches) >= MAX_BATCHES else demand.batches
    for batch in timed:
        # They end after the batch before, with which they were told to.
        known += [before] * batch.leaving
        rests += batch.after_rest
        before = (batch.needed_at, rests)
        comes += [before] * batch.pods
    first = demand.pods - short
    late = 0
    for number, (pod, freed) in enumerate(zip(comes[first:], known[gone:], strict=False), 1):
        # What waits for a person twice has the same far time for both: there is time in between.
        rested = pod[1] > freed[1] and pod[0] == freed[0]
        if pod[0] - freed[0] < enough and not rested:
            late = number
    return late


def without_last(demand: Demand, pods: int) -> Demand:
    """The demand without so many of its last pods."""
    batches = list(demand.batches)
    while pods > 0 and batches:
        last = batches.pop()
        if last.pods > pods:
            batches.append(replace(last, pods=last.pods - pods))
        pods -= last.pods
    return replace(demand, batches=tuple(batches))


def _prefer(batches: tuple[Batch, ...], nodes: Sequence[str]) -> list[Batch]:
    return [replace(batch, prefers=tuple(nodes)) for batch in batches]
