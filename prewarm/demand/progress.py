"""How does a Deployment's rolling update go on? Counts of pods, stepped as the Deployment controller steps them."""

import heapq
from collections.abc import Iterable

from msgspec import Struct

from prewarm.model.plans import Batch
from prewarm.model.quantities import int_or_percent
from prewarm.model.workloads import UpdateStrategy, Workload

MAX_BATCHES = 128
"""Batches told apart; what comes after them is counted into the last one."""


class Bounds(Struct, frozen=True):
    """spec.strategy.rollingUpdate in pods."""

    surge: int
    unavailable: int


class Counts(Struct, frozen=True):
    """Pods of a Deployment at one moment, without those that are being deleted."""

    replicas: int
    """spec.replicas."""
    new: int
    """Existing pods of the current ReplicaSet."""
    new_available: int
    old: int
    old_available: int


def bounds(workload: Workload) -> Bounds:
    """MaxSurge (rounded up) and maxUnavailable (rounded down); both 0 means one unavailable (ResolveFenceposts).

    Raises:
        ValueError: if one of them is neither a number nor a percentage.
    """
    surge = max(0, int_or_percent(workload.max_surge, workload.replicas, round_up=True))
    unavailable = max(0, int_or_percent(workload.max_unavailable, workload.replicas, round_up=False))
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, workload.replicas))


def rolling_batches(
    counts: Counts, limits: Bounds, now: float, available_at: Iterable[float], start_seconds: float, cold_seconds: float
) -> tuple[Batch, ...]:
    """Pods to come and old pods to go, in the order in which the Deployment controller creates and deletes them.

    Each time a pod becomes available, old ones go down to available - (replicas - unavailable), and new ones come up to
    replicas + surge (rolling.go, NewRSNewReplicas). Terminating pods do not count. A scale-up comes before a
    scale-down, which the controller does in its next sync.

    Args:
        counts: pods as they are.
        limits: surge and unavailable.
        now: Unix seconds; what the controller can do at once is needed now.
        available_at: when each pod of the current ReplicaSet that is not available yet is expected to be.
        start_seconds: from a pod's creation until it is available, with the image there.
        cold_seconds: the same for pods that are created at once, before anything can be pulled.
    """
    run = _Run(counts, limits)
    expected = [max(at, now) for at in available_at]
    heapq.heapify(expected)
    run.settle(now)
    for _ in range(run.created):
        heapq.heappush(expected, now + cold_seconds)
    # Pods expected at the same second still become available, and release others, one after another.
    step = max(1, run.missing * 2 // MAX_BATCHES)
    while run.missing > 0 and expected:
        at = heapq.heappop(expected)
        run.new_available += 1
        for _ in range(min(step - 1, len(expected))):
            at = heapq.heappop(expected)
            run.new_available += 1
        before = run.created
        run.settle(at)
        for _ in range(run.created - before):
            heapq.heappush(expected, at + start_seconds)
    if run.missing > 0:
        # Nothing is on its way that would release them: they come when the owner has mended the old pods.
        run.emit(now + cold_seconds, run.missing)
    return run.batches()


class _Run:
    """The controller's counters while it is stepped."""

    def __init__(self, counts: Counts, limits: Bounds) -> None:
        self._replicas = counts.replicas
        self._limits = limits
        self._new = min(counts.new, counts.replicas)
        self.new_available = min(counts.new_available, self._new)
        self._old = counts.old
        self._old_available = min(counts.old_available, counts.old)
        self._left = 0
        self._batches: list[Batch] = []
        self.created = 0

    @property
    def missing(self) -> int:
        return self._replicas - self._new

    def settle(self, at: float) -> None:
        """Scale up and down until the controller has nothing to do without another pod becoming available."""
        while True:
            room = self._replicas + self._limits.surge - self._new - self._old
            up = min(self.missing, room)
            if up > 0:
                self.emit(at, up)
                continue
            down = self._scale_down()
            if down <= 0:
                return

    def _scale_down(self) -> int:
        """Let old pods go: unhealthy ones first, then as many as availability allows (reconcileOldReplicaSets)."""
        minimum = self._replicas - self._limits.unavailable
        allowed = self._new + self._old - minimum - (self._new - self.new_available)
        if allowed <= 0 or self._old == 0:
            return 0
        unhealthy = min(allowed, self._old - self._old_available)
        healthy = min(self._old_available, self.new_available + self._old_available - minimum)
        down = unhealthy + max(0, healthy)
        self._old -= down
        self._old_available -= max(0, healthy)
        self._left += down
        return down

    def emit(self, at: float, pods: int) -> None:
        if len(self._batches) < MAX_BATCHES:
            self._batches.append(Batch(at, pods, self._left))
        else:
            last = self._batches[-1]
            self._batches[-1] = Batch(last.needed_at, last.pods + pods, last.leaving + self._left)
        self._left = 0
        self._new += pods
        self.created += pods

    def batches(self) -> tuple[Batch, ...]:
        return tuple(self._batches)


def recreate_batches(counts: Counts, gone_at: float) -> tuple[Batch, ...]:
    """All pods at once, when the last old one has ended (recreate.go)."""
    missing = counts.replicas - counts.new
    return (Batch(gone_at, missing, counts.old),) if missing > 0 else ()


def is_recreate(workload: Workload) -> bool:
    """Whether all old pods go before the first new one comes."""
    return workload.strategy is UpdateStrategy.RECREATE
