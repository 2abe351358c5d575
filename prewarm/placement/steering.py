"""Where should pods be steered? To the nodes that one course of events gives them: spread as the scheduler would."""

from collections.abc import Mapping

import numpy as np

from prewarm.model.plans import Demand
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.image_locality import ExpectedImage, normalized_name
from prewarm.placement.replay import Choice, Replays


def steerable_nodes(
    demand: Demand,
    snapshot: ClusterSnapshot,
    first: int,
    choice: Choice,
    *,
    seed: int,
    images: Mapping[str, ExpectedImage],
    cluster: ClusterArrays,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that the pods of all but the first batches take in one replay, and those that any pod takes, by name.

    One replay is one answer to where the scheduler puts them, with its filters, spread, zones and room; that another
    answer is as likely does not matter to pods that can be steered to this one.

    Args:
        demand: pods to come; those of the first batches may prefer nodes that are labelled already.
        snapshot: the cluster now.
        first: number of batches that are told apart.
        choice: nodes that may be chosen, and those that are liked and kept.
        seed: fixes what is drawn.
        images: images that will be on more nodes than report them now.
        cluster: the nodes that pods of the demand can reach.
    """
    if not cluster.count or not demand.pods:
        return (), ()
    expected = {normalized_name(image): value for image, value in images.items()}
    replay = Replays(demand, snapshot, cluster, rows=1, seed=seed, expected=expected, choice=choice)
    outcome = replay.run(first)[0]
    counts = outcome.counts[0]
    later = counts if outcome.first is None else counts - outcome.first[0]
    return _names(later, cluster), _names(counts, cluster)


def _names(counts: Ints, cluster: ClusterArrays) -> tuple[str, ...]:
    return cluster.names_at(np.flatnonzero(counts > 0))
