"""NodeResourcesFit with LeastAllocated, and NodeResourcesBalancedAllocation (plugins/noderesources, 1.36)."""

import numpy as np

from prewarm.model.plans import RejectReason
from prewarm.model.pods import PodShape
from prewarm.placement.arrays import MAX_NODE_SCORE, Ints, Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays, Usage


def least_allocated(requested: Ints, capacity: Ints) -> Ints:
    """Mean of the free shares of CPU and memory in whole percent; a resource that a node does not have is left out.

    Both arguments have the CPU in their first row and the memory in their second, as in `balanced_allocation`.
    """
    free = np.maximum(capacity - requested, 0)
    free *= MAX_NODE_SCORE
    if capacity.min(initial=1) > 0:
        free //= capacity
        both: Ints = (free[0] + free[1]) // 2
        return both
    has = capacity > 0
    free //= np.maximum(capacity, 1)
    free *= has
    mean: Ints = (free[0] + free[1]) // np.maximum(has[0].astype(np.int64) + has[1], 1)
    return mean


def balanced_allocation(used: Ints, pod: Ints, capacity: Ints) -> Ints:
    """How the pod changes a node's balance of CPU and memory: 75 if it does not, up to 100 if for the better."""
    # Without the pod, and with it.
    share = np.empty((2, *used.shape))
    complete = capacity.min(initial=1) > 0
    divisor = capacity if complete else np.maximum(capacity, 1)
    np.divide(used, divisor, out=share[0])
    np.divide(used + pod, divisor, out=share[1])
    np.minimum(share, 1.0, out=share)
    deviation = np.abs((share[:, 0] - share[:, 1]) / 2)
    if not complete:
        deviation *= (capacity[0] > 0) & (capacity[1] > 0)
    balance = ((1 - deviation) * MAX_NODE_SCORE).astype(np.int64)
    half = MAX_NODE_SCORE // 2
    score: Ints = half + (half + balance[1] - balance[0]) // 2
    return score


class ResourceFit:
    """Where a pod fits and how well, kept true cell by cell as pods land and leave.

    Cells are looked at again when somebody asks: between two pods of a rival many others land and leave.
    """

    def __init__(self, shape: PodShape, cluster: ClusterArrays, usage: Usage) -> None:
        self._shape = shape
        self._cluster = cluster
        self._usage = usage
        self._capacity = {name: cluster.extended(name) for name, amount in shape.requests.extended if amount > 0}
        request = shape.requests
        wanted = (request.milli_cpu, request.memory, request.ephemeral_storage)
        self._asked = [index for index, amount in enumerate(wanted) if amount > 0]
        """Of CPU, memory and ephemeral storage, those that the pod asks for."""
        self._amounts: Ints = np.stack((cluster.milli_cpu, cluster.memory))
        self._requested: Ints = np.array((shape.requests.milli_cpu, shape.requests.memory), dtype=np.int64)
        self._scored: Ints = np.array((shape.scoring_milli_cpu, shape.scoring_memory), dtype=np.int64)
        self._wanted: Ints = np.array(self.given_back(shape), dtype=np.int64)
        different, every = slice(usage.different_rows), slice(None)
        shape_of_all = (usage.pods.shape[0], cluster.count)
        self._known_fits: Mask = np.broadcast_to(self._fits(different, every), shape_of_all).copy()
        self._known_score: Scores = np.broadcast_to(self._score(different, every), shape_of_all).copy()
        self._changed: Mask = np.zeros(shape_of_all, dtype=np.bool_)
        self._stale: list[tuple[Ints, Ints]] = []

    @property
    def fits(self) -> Mask:
        """Cells with room for a pod."""
        self._look_again()
        return self._known_fits

    @property
    def score(self) -> Scores:
        """What NodeResourcesFit and NodeResourcesBalancedAllocation make of the cells."""
        self._look_again()
        return self._known_score

    @property
    def changed(self) -> Mask:
        """Cells that were refreshed; whoever looks may clear it."""
        self._look_again()
        return self._changed

    def refresh(self, rows: Ints, columns: Ints) -> None:
        """Tell of cells whose usage has changed."""
        self._stale.append((rows, columns))

    def _look_again(self) -> None:
        if not self._stale:
            return
        rows, columns = map(np.concatenate, zip(*self._stale, strict=True))
        self._stale.clear()
        # One index instead of two: numpy takes a quarter of the time.
        cells = rows * self._cluster.count + columns
        self._known_fits.reshape(-1)[cells] = self._fits(rows, columns)
        self._known_score.reshape(-1)[cells] = self._score(rows, columns)
        self._changed.reshape(-1)[cells] = True

    def _shortages(self, rows: Ints | slice, columns: Ints | slice) -> list[tuple[RejectReason, Mask]]:
        """Per resource, in the order in which the plugin looks, where it does not suffice.

        A pod that requests nothing of a resource fits even where it is overcommitted.
        """
        request, cluster = self._shape.requests, self._cluster
        cpu, memory, storage, _, _, pods = self._usage.at(rows, columns)
        found = [(RejectReason.TOO_MANY_PODS, pods + 1 > cluster.max_pods[columns])]
        amounts = (
            (RejectReason.INSUFFICIENT_CPU, request.milli_cpu, cluster.milli_cpu, cpu),
            (RejectReason.INSUFFICIENT_MEMORY, request.memory, cluster.memory, memory),
            (RejectReason.INSUFFICIENT_RESOURCE, request.ephemeral_storage, cluster.ephemeral_storage, storage),
        )
        for reason, amount, capacity, used in amounts:
            if amount > 0:
                found.append((reason, amount > capacity[columns] - used))
        for name, amount in request.extended:
            if amount > 0:
                short = amount > self._capacity[name][columns] - self._usage.extended(name)[rows, columns]
                found.append((RejectReason.INSUFFICIENT_RESOURCE, short))
        return found

    def _fits(self, rows: Ints | slice, columns: Ints | slice) -> Mask:
        shortages = self._shortages(rows, columns)
        short = shortages[0][1]
        for _, more in shortages[1:]:
            short = short | more
        return ~short

    def _score(self, rows: Ints | slice, columns: Ints | slice) -> Scores:
        request, usage = self._shape.requests, self._usage.at(rows, columns)
        capacity = self._amounts[:, np.newaxis] if isinstance(columns, slice) else self._amounts[:, columns]
        each = (2, *(1,) * (usage.ndim - 1))
        score = least_allocated(usage[3:5] + self._scored.reshape(each), capacity)
        if request.milli_cpu or request.memory:  # best effort pods skip BalancedAllocation
            score += balanced_allocation(usage[:2], self._requested.reshape(each), capacity)
        return score.astype(np.float32)

    def unlike_the_first(self) -> Mask:
        """Cells in which pods take something else than in the first replay."""
        every = slice(None)
        table = self._usage.at(every, every)
        differs: Mask = (table != table[:, :1]).any(axis=0)
        for name in self._capacity:
            taken = self._usage.extended(name)
            differs |= taken != taken[:1]
        return differs

    def room(self, row: int, column: int) -> tuple[Ints, Ints]:
        """What is free in one cell, and what the pod asks for, of all that it asks for: pod slots first."""
        cluster, cell = self._cluster, self._usage.at(row, column)
        capacities = (cluster.milli_cpu, cluster.memory, cluster.ephemeral_storage)
        free = [cluster.max_pods[column] - cell[5]]
        free += [capacities[index][column] - cell[index] for index in self._asked]
        free += [held[column] - self._usage.extended(name)[row, column] for name, held in self._capacity.items()]
        return np.array(free, dtype=np.int64), self._wanted

    def given_back(self, shape: PodShape) -> tuple[int, ...]:
        """What a pod of some shape takes of all that this one asks for."""
        request, extended = shape.requests, dict(shape.requests.extended)
        amounts = (request.milli_cpu, request.memory, request.ephemeral_storage)
        return (1, *(amounts[index] for index in self._asked), *(extended.get(name, 0) for name in self._capacity))

    def rejections(self, row: int) -> list[tuple[RejectReason, Mask]]:
        """Per reason, the nodes without room in one replay."""
        every = slice(None)
        return [(reason, short[row]) for reason, short in self._shortages(every, every)]
