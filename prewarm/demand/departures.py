"""In which order do a ReplicaSet's pods go? The order of ActivePodsWithRanks (pkg/controller/controller_utils.go)."""

import heapq
import math
from collections import Counter
from collections.abc import Sequence

from prewarm.model.pods import Pod, PodPhase

_PHASES = {PodPhase.PENDING: 0, PodPhase.UNKNOWN: 1, PodPhase.RUNNING: 2}

_Before = tuple[bool, int, bool, int]
_After = tuple[int, int, str]


def departure_order(leaving: Sequence[Pod], staying: Sequence[Pod], together: int, now: float) -> tuple[Pod, ...]:
    """Pods of one ReplicaSet in the order in which scaling it down deletes them.

    Without a node, pending, not ready, cheap to delete, sharing a node with others of the Deployment, younger: first.
    Ages are compared by their binary logarithm (feature LogarithmicScaleDown), equal ones by uid.

    Args:
        leaving: its unfinished pods that are not being deleted yet.
        staying: the other unfinished pods of the same Deployment: pods that share a node with them go earlier.
        together: how many go in one sync, ranked before any of them went; the others go one by one.
        now: Unix seconds.
    """
    related = Counter(pod.node_name for pod in (*staying, *leaving))
    ranked = sorted(
        (_before(pod), -related[pod.node_name], _after(pod, now), index) for index, pod in enumerate(leaving)
    )
    ordered = [leaving[index] for *_, index in ranked[:together]]
    related.subtract(pod.node_name for pod in ordered)
    waiting = ranked[together:]
    heapq.heapify(waiting)
    while waiting:
        before, rank, after, index = heapq.heappop(waiting)
        pod = leaving[index]
        if -rank != related[pod.node_name]:
            # Counts only fall, which only moves a pod back: correcting it when it is met gives the exact order.
            heapq.heappush(waiting, (before, -related[pod.node_name], after, index))
            continue
        ordered.append(pod)
        related[pod.node_name] -= 1
    return tuple(ordered)


def _before(pod: Pod) -> _Before:
    """Rules 1 to 4 of ActivePodsWithRanks, which come before the count of pods on the node."""
    return (pod.node_name != "", _PHASES.get(pod.phase, 0), pod.ready_at is not None, pod.deletion_cost)


def _after(pod: Pod, now: float) -> _After:
    """Rules 6 to 8: ready for a shorter time, or never ready, restarted more often and younger; then by uid."""
    if pod.ready_at is not None:
        return (_magnitude(now - pod.ready_at), 0, pod.uid)
    restarts = max((status.restart_count for status in pod.containers if not status.init), default=0)
    return (-restarts, _magnitude(now - pod.created_at), pod.uid)


def _magnitude(age: float) -> int:
    """Binary logarithm of an age in nanoseconds, as logarithmicRankDiff rounds it."""
    return int(math.log2(age * 1e9)) if age > 0 else -1
