"""Which feasible nodes are scored: all below 100 nodes, else a share from a rotating start (schedule_one.go).

Neither the order of the nodes in the scheduler's cache nor its start index shows in a snapshot, so every replay
draws its own.
"""

import numpy as np
from numpy.typing import NDArray

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

    def __init__(
        self,
        cluster: ClusterArrays,
        rows: int,
        random: np.random.Generator,
        copies: int = 1,
        *,
        asked: int | None = None,
    ) -> None:
        """`rows` are drawn; they come `copies` times, one set after the other.

        Args:
            cluster: the nodes that matter.
            rows: replays.
            random: draws orders and start indices.
            copies: how often they come.
            asked: how many of all nodes filters are asked about; None: all.
        """
        self._limit = nodes_to_find(cluster.whole.count if asked is None else asked)
        self._all = self._limit >= cluster.count
        self._count = cluster.count
        if self._all:
            return
        order = np.tile(_interleaved(cluster, rows, random), (copies, 1))
        self._order = order + np.arange(len(order), dtype=np.int64)[:, np.newaxis] * cluster.count
        self._position = np.empty_like(order, dtype=np.int32)
        np.put_along_axis(self._position, order, np.arange(cluster.count, dtype=np.int32)[np.newaxis], axis=1)
        self._start: Ints = np.tile(random.integers(cluster.count, size=rows), copies)
        self._feasible: Mask = np.zeros(order.shape, dtype=np.bool_)
        self._seen = np.zeros(order.shape, dtype=np.int32)

    def select(self, feasible: Mask, active: Mask) -> Mask:
        """The feasible nodes that are scored for the next pod; moves the start index on in active rows.

        In each row the search goes around from the start index until it has found enough. A row in which no pod waits
        searches nothing, however many wait in others.
        """
        if self._all:
            return feasible
        if not np.array_equal(feasible, self._feasible):
            self._feasible = feasible.copy()
            self._seen = np.cumsum(feasible.ravel()[self._order], axis=1, dtype=np.int32)
        seen, start = self._seen, self._start
        total = seen[:, -1]
        ends = total > self._limit
        if not ends.any():
            return feasible
        rows = np.arange(len(seen))
        goal = np.where(start > 0, seen[rows, start - 1], 0) + self._limit
        around = goal > total
        last = (seen >= _column(np.where(around, goal - total, goal))).argmax(axis=1)
        behind = self._position >= _column(np.where(ends, start, 0))
        before = self._position <= _column(np.where(ends, last, self._count - 1))
        window = np.where((around & ends)[:, np.newaxis], behind | before, behind & before)
        self._start = np.where(ends & active, (last + 1) % self._count, start)
        selected: Mask = feasible & window
        return selected


def _column(values: Ints) -> NDArray[np.int32]:
    """A value per row, in the width of what it is compared with."""
    return values.astype(np.int32)[:, np.newaxis]


def _interleaved(cluster: ClusterArrays, rows: int, random: np.random.Generator) -> Ints:
    """Columns in a possible order of the scheduler's cache: one node of every zone in turn (node_tree.go)."""
    zones = cluster.scheduler_zones
    shuffled = [random.permuted(np.repeat(zone[np.newaxis], rows, axis=0), axis=1) for zone in zones]
    grouped = np.concatenate(shuffled, axis=1)
    rank = random.permuted(np.repeat(np.arange(len(zones))[np.newaxis], rows, axis=0), axis=1)
    zone_of = np.repeat(np.arange(len(zones)), [len(zone) for zone in zones])
    within = np.concatenate([np.arange(len(zone)) for zone in zones])
    turn = np.argsort(within * len(zones) + rank[:, zone_of], axis=1)
    order: Ints = np.take_along_axis(grouped, turn, axis=1)
    return order
