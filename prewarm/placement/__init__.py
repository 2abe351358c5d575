"""Where will it land? Replays of the scheduler's filters and scores over all nodes at once."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from prewarm.model.plans import Candidates, Demand
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints
from prewarm.placement.candidates import summarize
from prewarm.placement.cluster_arrays import ClusterArrays, cluster_arrays
from prewarm.placement.competitors import competitors
from prewarm.placement.image_locality import ExpectedImage, is_found, lists, normalized_name
from prewarm.placement.incoming import IncomingPod, of_demand
from prewarm.placement.meeting import admitted_count, columns_of, meets
from prewarm.placement.new_nodes import JOINING_SECONDS, new_nodes
from prewarm.placement.pauses import between_steps, waiting_between_steps
from prewarm.placement.reach import reachable
from prewarm.placement.replay import Choice, Outcome, Replays
from prewarm.placement.rivals import in_time
from prewarm.placement.room import with_room
from prewarm.placement.steering import Steerable, steerable_nodes

__all__ = [
    "JOINING_SECONDS",
    "Choice",
    "ClusterArrays",
    "ExpectedImage",
    "Steerable",
    "admitted_count",
    "between_steps",
    "cluster_arrays",
    "columns_of",
    "in_time",
    "is_found",
    "lists",
    "meets",
    "new_nodes",
    "place",
    "place_both_ways",
    "place_in_turn",
    "reachable",
    "steerable_nodes",
    "waiting_between_steps",
    "with_room",
]


def place(
    demand: Demand,
    snapshot: ClusterSnapshot,
    *,
    replays: int = 32,
    seed: int = 0,
    images: Mapping[str, ExpectedImage] | None = None,
    cluster: ClusterArrays | None = None,
    rivals: Sequence[Demand] = (),
) -> Candidates:
    """Where a demand's pods will land, as the default scheduler of Kubernetes 1.36 would have it.

    Not seen: volumes that are not bound yet; for nodes that an autoscaler would add, see `new_nodes`. Of other
    schedulers and profiles only the filters are taken for known. What a snapshot does not show (node order, start
    index, ties) is drawn anew for each replay, from `seed` alone.

    Args:
        demand: pods to come.
        snapshot: the cluster now.
        replays: possible courses of events; cost grows with it, the resolution of probabilities too.
        seed: fixes what is drawn; equal arguments give equal results.
        images: images, as pod specs write them, that will be on more nodes than report them now.
        cluster: the snapshot's nodes, where several demands on one snapshot share them, or those that are
            `reachable`; without it, they are found out.
        rivals: what other workloads bring meanwhile, as far as it is to be counted on (`in_time`).
    """
    arrays = cluster if cluster is not None else reachable(demand, snapshot, cluster_arrays(snapshot), rivals)
    if not arrays.count or not demand.pods:
        return Candidates(nodes=(), unplaced=demand.pods)
    return summarize(_replays(demand, snapshot, arrays, replays, seed, images, rivals=rivals).run()[0], arrays)


def place_in_turn(
    demand: Demand,
    snapshot: ClusterSnapshot,
    first: int,
    *,
    replays: int = 32,
    seed: int = 0,
    images: Mapping[str, ExpectedImage] | None = None,
    cluster: ClusterArrays | None = None,
    rivals: Sequence[Demand] = (),
) -> tuple[Candidates, Candidates]:
    """What `place` says of a demand's first batches alone, and of all of it: mostly at the price of one call.

    Both take the same course until the first batches are placed. Only if some of their pods find no node are they
    replayed apart: alone, they would wait for the last old pods to go.

    Args:
        demand: pods to come; its `leaving` holds no pods but those that the first batches count.
        snapshot: the cluster now.
        first: number of batches.
        replays: as for `place`, like all that follow.
        seed: the same.
        images: the same.
        cluster: the same.
        rivals: the same.
    """
    arrays = cluster if cluster is not None else reachable(demand, snapshot, cluster_arrays(snapshot), rivals)
    head = replace(demand, batches=demand.batches[:first])
    if arrays.count and head.pods:
        outcome = _replays(demand, snapshot, arrays, replays, seed, images, rivals=rivals).run(first)[0]
        if outcome.first is not None:
            return _alone(outcome, outcome.first, arrays), summarize(outcome, arrays)
    both = (
        place(one, snapshot, replays=replays, seed=seed, images=images, cluster=arrays, rivals=rivals)
        for one in (head, demand)
    )
    return next(both), next(both)


def place_both_ways(
    demand: Demand,
    snapshot: ClusterSnapshot,
    first: int,
    leaving: int,
    *,
    replays: int = 32,
    seed: int = 0,
    images: Mapping[str, ExpectedImage] | None = None,
    cluster: ClusterArrays | None = None,
    rivals: Sequence[Demand] = (),
) -> tuple[Candidates, Candidates, Candidates]:
    """What `place_in_turn` says of a demand of whose old pods only some leave, and `place` of it: at one price.

    Most of what a replay of few nodes costs is the same for any number of replays, so both are played side by side.

    Args:
        demand: pods to come.
        snapshot: the cluster now.
        first: number of batches that are told apart; they count no more than `leaving` pods.
        leaving: how many of the leaving pods, in their order, leave in the first two answers.
        replays: as for `place`, like all that follow.
        seed: the same.
        images: the same.
        cluster: the same.
        rivals: the same.
    """
    arrays = cluster if cluster is not None else reachable(demand, snapshot, cluster_arrays(snapshot), rivals)
    fewer = replace(demand, leaving=demand.leaving[:leaving])
    pod = of_demand(demand, snapshot)
    if (
        not arrays.count
        or not demand.pods
        or _waiting(fewer, snapshot, pod, arrays) != _waiting(demand, snapshot, pod, arrays)
    ):
        apart = place_in_turn(
            fewer, snapshot, first, replays=replays, seed=seed, images=images, cluster=arrays, rivals=rivals
        )
        return *apart, place(demand, snapshot, replays=replays, seed=seed, images=images, cluster=arrays, rivals=rivals)
    most = (len(fewer.leaving), len(demand.leaving))
    some, every = _replays(demand, snapshot, arrays, replays, seed, images, most, rivals).run(first)
    if some.first is not None:
        return _alone(some, some.first, arrays), summarize(some, arrays), summarize(every, arrays)
    head = replace(fewer, batches=demand.batches[:first])
    alone = place(head, snapshot, replays=replays, seed=seed, images=images, cluster=arrays, rivals=rivals)
    return alone, summarize(some, arrays), summarize(every, arrays)


def _waiting(
    demand: Demand, snapshot: ClusterSnapshot, pod: IncomingPod, cluster: ClusterArrays
) -> list[tuple[str, int, int]]:
    return [(one.owner_uid, id(one.shape), number) for one, number in competitors(demand, snapshot, pod, cluster)]


def _alone(outcome: Outcome, counts: Ints, cluster: ClusterArrays) -> Candidates:
    """What an outcome says of the first batches, all of whose pods found a node."""
    return summarize(replace(outcome, counts=counts, unplaced=np.zeros_like(outcome.unplaced)), cluster)


def _replays(
    demand: Demand,
    snapshot: ClusterSnapshot,
    cluster: ClusterArrays,
    rows: int,
    seed: int,
    images: Mapping[str, ExpectedImage] | None,
    most_leaving: Sequence[int] = (),
    rivals: Sequence[Demand] = (),
) -> Replays:
    expected = {normalized_name(image): value for image, value in (images or {}).items()}
    return Replays(
        demand,
        snapshot,
        cluster,
        rows=max(1, rows),
        seed=seed,
        expected=expected,
        most_leaving=most_leaving,
        rivals=rivals,
    )
