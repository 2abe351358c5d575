"""NodeResourcesFit with LeastAllocated, and NodeResourcesBalancedAllocation (plugins/noderesources, 1.36)."""

import numpy as np

from prewarm.model.plans import RejectReason
from prewarm.model.pods import PodShape
from prewarm.placement.arrays import MAX_NODE_SCORE, Ints, Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays, Usage


def least_allocated(requested_cpu: Ints, requested_memory: Ints, cpu: Ints, memory: Ints) -> Ints:
    """Mean of the free shares of CPU and memory in whole percent; a resource that a node does not have is left out."""
    total = np.zeros(np.broadcast_shapes(requested_cpu.shape, cpu.shape), dtype=np.int64)
    for requested, capacity in ((requested_cpu, cpu), (requested_memory, memory)):
        free = np.maximum(capacity - requested, 0) * MAX_NODE_SCORE
        total += np.where(capacity > 0, free // np.maximum(capacity, 1), 0)
    weights = (cpu > 0).astype(np.int64) + (memory > 0)
    return total // np.maximum(weights, 1)


def _balance(requested_cpu: Ints, requested_memory: Ints, cpu: Ints, memory: Ints) -> Ints:
    both = (cpu > 0) & (memory > 0)
    share_cpu = np.minimum(requested_cpu / np.maximum(cpu, 1), 1.0)
    share_memory = np.minimum(requested_memory / np.maximum(memory, 1), 1.0)
    deviation = np.where(both, np.abs((share_cpu - share_memory) / 2), 0.0)
    return ((1 - deviation) * MAX_NODE_SCORE).astype(np.int64)


def balanced_allocation(
    used_cpu: Ints, used_memory: Ints, pod_cpu: int, pod_memory: int, cpu: Ints, memory: Ints
) -> Ints:
    """How the pod changes a node's balance of CPU and memory: 75 if it does not, up to 100 if for the better."""
    with_pod = _balance(used_cpu + pod_cpu, used_memory + pod_memory, cpu, memory)
    without = _balance(used_cpu, used_memory, cpu, memory)
    half = MAX_NODE_SCORE // 2
    return half + (half + with_pod - without) // 2


class ResourceFit:
    """Where a pod fits and how well, kept true cell by cell as pods land and leave."""

    def __init__(self, shape: PodShape, cluster: ClusterArrays, usage: Usage) -> None:
        self._shape = shape
        self._cluster = cluster
        self._usage = usage
        self._capacity = {name: cluster.extended(name) for name, amount in shape.requests.extended if amount > 0}
        every = slice(None)
        self.fits: Mask = self._fits(every, every)
        self.score: Scores = self._score(every, every)

    def refresh(self, rows: Ints, columns: Ints) -> None:
        """Look again at the cells whose usage has changed."""
        self.fits[rows, columns] = self._fits(rows, columns)
        self.score[rows, columns] = self._score(rows, columns)

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
        shape = self._shape
        cpu, memory = self._cluster.milli_cpu[columns], self._cluster.memory[columns]
        used_cpu, used_memory, _, counted_cpu, counted_memory, _ = self._usage.at(rows, columns)
        score = least_allocated(
            counted_cpu + shape.scoring_milli_cpu, counted_memory + shape.scoring_memory, cpu, memory
        )
        request = shape.requests
        if request.milli_cpu or request.memory:  # best effort pods skip BalancedAllocation
            score = score + balanced_allocation(used_cpu, used_memory, request.milli_cpu, request.memory, cpu, memory)
        return score.astype(np.float32)

    def rejections(self) -> list[tuple[RejectReason, Mask]]:
        """Per reason, the nodes without room in the first replay."""
        every = slice(None)
        return [(reason, short[0]) for reason, short in self._shortages(every, every)]
