"""How long have pods taken to stop? Noted when they are missed, timed by the next snapshot: the store has no clock."""

from collections import deque
from collections.abc import Mapping

from prewarm.cluster.tables import Table
from prewarm.model.pods import ContainerPhase, Pod
from prewarm.model.workloads import WorkloadKey

KEPT = 7
"""Pods of a workload that are remembered, the last to go: one that hangs does not decide."""
LONGEST_STOP = 3600.0
"""Seconds; a pod that took longer waited for something else than its containers."""
MAX_GAP = 5.0
"""Seconds since the snapshot before, at most: otherwise nobody knows when in between a pod went."""
_TRUNCATED = 0.5
"""Seconds by which a time of the API, which holds whole ones, is early on average."""
_CLOCKS_DIFFER = 2.0
"""Seconds by which a node's clock may be behind the API server's."""


class Stops:
    """Seconds from the moment at which pods were told to stop to their deletion, by workload; bounded."""

    def __init__(self) -> None:
        self._seconds: Table[WorkloadKey, tuple[float, ...]] = Table()
        self._missed: dict[WorkloadKey, deque[float]] = {}
        self._looked_at: float | None = None

    def missed(self, workload: WorkloadKey, pod: Pod) -> None:
        """A pod's object has gone; heeded if it shows that containers ran and ended because they were told to."""
        if pod.stopping_since is not None and _stopped(pod, pod.stopping_since):
            self._missed.setdefault(workload, deque(maxlen=KEPT)).append(pod.stopping_since)

    def forget(self, workload: WorkloadKey) -> None:
        """The workload is gone."""
        self._seconds.pop(workload)
        self._missed.pop(workload, None)

    def view(self, now: float) -> Mapping[WorkloadKey, tuple[float, ...]]:
        """What is known by now (Unix seconds of the API server): pods missed since the last call have just gone."""
        if self._missed:
            if self._looked_at is not None and 0 <= now - self._looked_at <= MAX_GAP:
                self._time(now)
            self._missed.clear()
        self._looked_at = now
        return self._seconds.view()

    def _time(self, now: float) -> None:
        for workload, told in self._missed.items():
            took = (max(0.0, now - since - _TRUNCATED) for since in told)
            plausible = tuple(seconds for seconds in took if seconds <= LONGEST_STOP)
            if plausible:
                self._seconds.put(workload, (*(self._seconds.get(workload) or ()), *plausible)[-KEPT:])


def _stopped(pod: Pod, told: float) -> bool:
    """Whether a pod's containers ran until it was told to stop, and had all ended before its object went.

    Not so of pods that never ran or had failed, and of those whose objects went before their containers: deleted by
    force, or with their node.
    """
    main = [status for status in pod.containers if not status.init]
    if not main or any(status.phase is not ContainerPhase.TERMINATED for status in main):
        return False
    ends = [status.finished_at for status in main if status.started_at is not None and status.finished_at is not None]
    return max(ends, default=float("-inf")) >= told - _CLOCKS_DIFFER
