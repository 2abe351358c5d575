"""What many replays say together: a landing probability per node, and how far they agree."""

from collections import Counter

import numpy as np

from prewarm.model.plans import CandidateNode, Candidates
from prewarm.placement.arrays import Ints
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.replay import Outcome

MIN_PROBABILITY = 0.01
"""Nodes below are left out."""


def summarize(outcome: Outcome, cluster: ClusterArrays) -> Candidates:
    """Candidates in order of probability; rejected nodes only where no pod lands later either."""
    probability = (outcome.counts > 0).mean(axis=0)
    columns = sorted(np.flatnonzero(probability >= MIN_PROBABILITY), key=lambda column: (-probability[column], column))
    nodes = tuple(CandidateNode(cluster.names[column], float(probability[column])) for column in columns)
    reasons = Counter(reason for column, reason in outcome.rejected.items() if probability[column] == 0)
    reasons.update(outcome.elsewhere)
    return Candidates(
        nodes=nodes,
        rejected=tuple(sorted(reasons.items())),
        predictability=predictability(outcome.counts),
        unplaced=round(float(outcome.unplaced.mean())),
    )


def predictability(counts: Ints) -> float:
    """Mean share of pods that two replays put on the same nodes, over all pairs of replays.

    The overlap of two multisets is the sum over levels t of the nodes where both hold at least t pods, so it is
    counted per node and level, not per pair.
    """
    rows = len(counts)
    pods = float(counts.sum()) / rows if rows else 0.0
    if rows < 2 or pods == 0:
        return 1.0
    used = counts[:, counts.any(axis=0)]
    shared = 0
    for level in range(1, int(used.max()) + 1):
        holders = (used >= level).sum(axis=0)
        shared += int((holders * (holders - 1) // 2).sum())
    return shared / (rows * (rows - 1) / 2) / pods
