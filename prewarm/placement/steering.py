"""Where should pods be steered? To the nodes that one course of events gives them: spread as the scheduler would."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from prewarm.model.plans import Demand
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.image_locality import ExpectedImage, normalized_name
from prewarm.placement.replay import Choice, Replays


class Steerable(Struct, frozen=True):
    """Where pods go, by name of the node: told apart by what has to happen before, since that decides when to pull."""

    later: tuple[str, ...] = ()
    """Those that pods of all but the first batches take."""
    every: tuple[str, ...] = ()
    """Those that any pod takes."""
    in_room: tuple[str, ...] = ()
    """Those of `later` that take a pod before more old ones leave than are known."""
    short: int = 0
    """Pods that have room only once more old ones have left: the last that come."""


def steerable_nodes(
    demand: Demand,
    snapshot: ClusterSnapshot,
    first: int,
    choice: Choice,
    *,
    seed: int,
    images: Mapping[str, ExpectedImage],
    cluster: ClusterArrays,
    replays: int = 1,
    share: float = 0.5,
) -> Steerable:
    """The nodes that the pods take in a share of the replays, by default in half of them.

    One replay is one answer to where the scheduler puts them, with its filters, spread, zones and room; that another
    answer is as likely does not matter to pods that can be steered to this one. Where old pods have to make room, more
    of them tell how likely each is to.

    Args:
        demand: pods to come; those of the first batches may prefer nodes that are labelled already.
        snapshot: the cluster now.
        first: number of batches that are told apart.
        choice: nodes that may be chosen, and those that are liked and kept.
        seed: fixes what is drawn.
        images: images that will be on more nodes than report them now.
        cluster: the nodes that pods of the demand can reach.
        replays: possible courses of events.
        share: of the replays in which a node takes a pod, at least.
    """
    if not cluster.count or not demand.pods:
        return Steerable()
    expected = {normalized_name(image): value for image, value in images.items()}
    replay = Replays(demand, snapshot, cluster, rows=replays, seed=seed, expected=expected, choice=choice)
    outcome = replay.run(first)[0]
    before = 0 if outcome.first is None else outcome.first
    in_room = outcome.counts if outcome.in_room is None else outcome.in_room
    return Steerable(
        _often(outcome.counts - before, cluster, share),
        _often(outcome.counts, cluster, share),
        _often(in_room - before, cluster, share),
        outcome.short,
    )


def _often(counts: Ints, cluster: ClusterArrays, share: float) -> tuple[str, ...]:
    """Nodes with a pod in this share of the replays."""
    return cluster.names_at(np.flatnonzero((counts > 0).mean(axis=0) >= share))
