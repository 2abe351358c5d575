"""How does a Deployment's rolling update go on? Counts of pods, stepped as the Deployment controller steps them."""

import heapq
from collections.abc import Iterable
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.plans import Batch
from prewarm.model.quantities import int_or_percent
from prewarm.model.workloads import UpdateStrategy, Workload

MAX_BATCHES = 128
"""Batches told apart; what comes after them is counted into the last one."""
STOPPING_SECONDS = 1.0
"""Assumed from a pod's deletion to its end, which frees its room, where none of its workload was measured."""
SPREAD = 0.1
"""Assumed difference between the first and the last of pods that start together, as a share of their start."""


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


class Times(Struct, frozen=True):
    """When things happen that the controller waits for; Unix seconds and seconds."""

    available: tuple[float, ...]
    """When each pod of the current ReplicaSet that is not available yet is expected to be."""
    ends: tuple[float, ...]
    """When each pod that was deleted already ends."""
    warm_seconds: float
    """From a pod's creation until it is available, with the image there."""
    cold_seconds: float
    """The same for pods that are created at once, before anything can be pulled."""
    stop_seconds: float = STOPPING_SECONDS
    """From the deletion of an old pod to its end."""
    waiting: int | None = None
    """Pods that wait for the room of old ones to end, as those to come will; None: there is room elsewhere."""


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


def rolling_batches(counts: Counts, limits: Bounds, now: float, times: Times) -> tuple[Batch, ...]:
    """Pods to come and old pods to go, in the order in which the Deployment controller creates and deletes them.

    Each time a pod becomes available, old ones go down to available - (replicas - unavailable), and new ones come up to
    replicas + surge (rolling.go, NewRSNewReplicas). Terminating pods do not count there, but take room on their node
    until they end. A scale-up comes before a scale-down, which the controller does in its next sync.
    """
    run = Run(counts, limits, times.ends, times.stop_seconds, times.waiting)
    expected = [max(at, now) for at in times.available]
    heapq.heapify(expected)
    run.settle(now)
    for index, room_at in enumerate(run.rooms):
        cold_at = now + spread(times.cold_seconds, index, run.created)
        # While it waits for room, its image is pulled.
        heapq.heappush(expected, max(cold_at, room_at + times.warm_seconds))
    # Pods become available, and release others, one after another; of very many, several at a time.
    step = max(1, run.missing * 2 // MAX_BATCHES)
    while run.missing > 0 and expected:
        at = heapq.heappop(expected)
        run.new_available += 1
        for _ in range(min(step - 1, len(expected))):
            at = heapq.heappop(expected)
            run.new_available += 1
        before = run.created
        run.settle(at)
        for room_at in run.rooms[before:]:
            heapq.heappush(expected, room_at + times.warm_seconds)
    if run.missing > 0:
        # Nothing is on its way that would release them: they come when the owner has mended the old pods.
        run.emit(now + times.cold_seconds, run.missing)
    return run.batches()


def spread(seconds: float, index: int, of: int) -> float:
    """How long the pod of this index takes, where pods that start together take about `seconds`."""
    return seconds * (1 + SPREAD * index / max(1, of))


class Run:
    """The controller's counters while it is stepped."""

    def __init__(
        self,
        counts: Counts,
        limits: Bounds,
        ends: Iterable[float],
        stop_seconds: float = STOPPING_SECONDS,
        waiting: int | None = None,
    ) -> None:
        """`ends`, `stop_seconds` and `waiting` are those of Times."""
        self._replicas = counts.replicas
        self._limits = limits
        self._new = min(counts.new, counts.replicas)
        self.new_available = min(counts.new_available, self._new)
        self._old = counts.old
        self._old_available = min(counts.old_available, counts.old)
        self._stop_seconds = stop_seconds
        self._ends = list(ends)
        heapq.heapify(self._ends)
        self._free: list[float] | None = None if waiting is None else sorted(self._ends)[waiting:]
        """When rooms become free that no pod waits for yet; None: pods need none of them."""
        self.rooms: list[float] = []
        """When each pod that came has room, in order of creation."""
        self._batches: list[Batch] = []
        self._wanted = counts.replicas
        self._kept = 0
        self.departed = 0

    @property
    def created(self) -> int:
        """Pods that came."""
        return len(self.rooms)

    @property
    def missing(self) -> int:
        """New pods still to come."""
        return self._wanted - self._new

    def aim(self, wanted: int, kept: int) -> None:
        """Go for so many new pods and no fewer old ones; at first for all and none."""
        self._wanted, self._kept = wanted, kept

    def settle(self, at: float) -> None:
        """Scale up and down until the controller has nothing to do without another pod becoming available."""
        while True:
            up = min(self.missing, self._replicas + self._limits.surge - self._new - self._old)
            if up > 0:
                self.emit(at, up)
                continue
            down = self._scale_down()
            if down <= 0:
                return
            self.departed += down
            for _ in range(down):
                heapq.heappush(self._ends, at + self._stop_seconds)
                if self._free is not None:
                    heapq.heappush(self._free, at + self._stop_seconds)

    def _scale_down(self) -> int:
        """Let old pods go: unhealthy ones first, then as many as availability allows (reconcileOldReplicaSets)."""
        minimum = self._replicas - self._limits.unavailable
        allowed = self._new + self._old - minimum - (self._new - self.new_available)
        if allowed <= 0 or self._old == 0:
            return 0
        allowed = min(allowed, self._old - self._kept)
        if allowed <= 0:
            return 0
        unhealthy = min(allowed, self._old - self._old_available)
        spare = self.new_available + self._old_available - minimum
        healthy = max(0, min(self._old_available, spare, self._old - unhealthy - self._kept))
        self._old -= unhealthy + healthy
        self._old_available -= healthy
        return unhealthy + healthy

    def emit(self, at: float, pods: int) -> None:
        """Pods come, each when it has room."""
        rooms = [at] * pods if self._free is None else [self._room(at) for _ in range(pods)]
        self.rooms += rooms
        for room_at, together in groupby(rooms):
            self._emit(room_at, len(list(together)))

    def _room(self, at: float) -> float:
        """When the next pod has room, not before those before it."""
        free_at = heapq.heappop(self._free) if self._free else at
        return max(at, free_at, self.rooms[-1] if self.rooms else at)

    def _emit(self, at: float, pods: int) -> None:
        """Counted before the pods are the old ones that have ended by then."""
        left = 0
        while self._ends and self._ends[0] <= at:
            heapq.heappop(self._ends)
            left += 1
        if len(self._batches) < MAX_BATCHES:
            self._batches.append(Batch(at, pods, left))
        else:
            last = self._batches[-1]
            self._batches[-1] = Batch(last.needed_at, last.pods + pods, last.leaving + left)
        self._new += pods

    def step(self, at: float, *, after_rest: bool) -> None:
        """As `settle`; the first batch of what comes says how many old pods go with it."""
        first, departed = len(self._batches), self.departed
        self.settle(at)
        if first < len(self._batches) < MAX_BATCHES:
            self._batches[first] = replace(
                self._batches[first], after_rest=after_rest, at_once=self.departed - departed
            )

    def batches(self) -> tuple[Batch, ...]:
        """What came so far, in order."""
        return tuple(self._batches)


def departing_now(counts: Counts, limits: Bounds) -> int:
    """Old pods that the controller deletes before another pod has to become available."""
    run = Run(counts, limits, ())
    run.settle(0.0)
    return run.departed


def recreate_batches(counts: Counts, gone_at: float, going: int) -> tuple[Batch, ...]:
    """All pods at once, when the last old one has ended (recreate.go); `going` old pods are on their way out."""
    missing = counts.replicas - counts.new
    return (Batch(gone_at, missing, counts.old + going),) if missing > 0 else ()


def is_recreate(workload: Workload) -> bool:
    """Whether all old pods go before the first new one comes."""
    return workload.strategy is UpdateStrategy.RECREATE
