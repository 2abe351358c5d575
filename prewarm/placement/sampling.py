"""Which feasible nodes are scored: all below 100 nodes, else a share from a rotating start (schedule_one.go).

Neither the order of the nodes in the scheduler's cache nor its start index shows in a snapshot, so every replay
draws its own.
"""

import numpy as np

from prewarm.placement.arrays import Ints, Mask
from prewarm.placement.cluster_arrays import ClusterArrays

_MIN_FEASIBLE_NODES = 100
_MIN_PERCENT = 5


def nodes_to_find(count: int) -> int:
    """Feasible nodes after which the search ends: numFeasibleNodesToFind with percentageOfNodesToScore 0."""
    if count < _MIN_FEASIBLE_NODES:
        return count
    percent = max(_MIN_PERCENT, 50 - count // 125)
    return max(_MIN_FEASIBLE_NODES, count * percent // 100)


class NodeSampling:
    """Node order and start index of every replay."""

    def __init__(self, cluster: ClusterArrays, rows: int, random: np.random.Generator) -> None:
        self._limit = nodes_to_find(cluster.count)
        self._all = self._limit >= cluster.count
        self._count = cluster.count
        if self._all:
            return
        order = _interleaved(cluster, rows, random)
        offsets = np.arange(rows, dtype=np.int64)[:, np.newaxis] * cluster.count
        self._order = order + offsets
        self._position = np.empty_like(order)
        np.put_along_axis(self._position, order, np.arange(cluster.count)[np.newaxis], axis=1)
        self._position += offsets
        self._start: Ints = random.integers(cluster.count, size=rows)

    def select(self, feasible: Mask) -> Mask:
        """The feasible nodes that are scored for the next pod; moves the start index on."""
        if self._all or not (feasible.sum(axis=1) > self._limit).any():
            return feasible
        count = self._count
        in_order = feasible.ravel()[self._order]
        seen = np.cumsum(in_order, axis=1, dtype=np.int32)
        total = seen[:, -1:]
        before = np.where(self._start > 0, seen[np.arange(len(seen)), self._start - 1], 0)[:, np.newaxis]
        wrapped = np.arange(count) < self._start[:, np.newaxis]
        rank = seen - before + total * wrapped
        chosen = in_order & (rank <= self._limit)
        last = (in_order & (rank == self._limit)).argmax(axis=1)
        self._start = np.where(total[:, 0] >= self._limit, (last + 1) % count, self._start)
        selected: Mask = chosen.ravel()[self._position]
        return selected


def _interleaved(cluster: ClusterArrays, rows: int, random: np.random.Generator) -> Ints:
    """Columns in a possible order of the scheduler's cache: one node of every zone in turn (node_tree.go)."""
    zones = cluster.scheduler_zones()
    shuffled = [random.permuted(np.repeat(zone[np.newaxis], rows, axis=0), axis=1) for zone in zones]
    grouped = np.concatenate(shuffled, axis=1)
    rank = random.permuted(np.repeat(np.arange(len(zones))[np.newaxis], rows, axis=0), axis=1)
    zone_of = np.repeat(np.arange(len(zones)), [len(zone) for zone in zones])
    within = np.concatenate([np.arange(len(zone)) for zone in zones])
    turn = np.argsort(within * len(zones) + rank[:, zone_of], axis=1)
    order: Ints = np.take_along_axis(grouped, turn, axis=1)
    return order
