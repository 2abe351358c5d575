"""How long have pods taken to stop? Read from the last state of each when its object goes."""

from collections.abc import Mapping

from prewarm.cluster.tables import Table
from prewarm.model.pods import ContainerPhase, Pod
from prewarm.model.workloads import WorkloadKey

KEPT = 7
"""Pods of a workload that are remembered, the last to go: one that hangs does not decide."""
LONGEST_STOP = 3600.0
"""Seconds; a pod that took longer waited for something else than its containers."""
GOING_SECONDS = 0.5
"""From the end of a pod's last container until its room is free: the kubelet tells of it first."""
_CLOCKS_DIFFER = 2.0
"""Seconds by which a node's clock may be behind the API server's."""


class Stops:
    """Seconds from the moment at which pods were told to stop until their room was free, by workload; bounded."""

    def __init__(self) -> None:
        self._seconds: Table[WorkloadKey, tuple[float, ...]] = Table()

    def missed(self, workload: WorkloadKey, pod: Pod) -> None:
        """A pod's object has gone; heeded if it shows that containers ran and ended because they were told to."""
        took = _took(pod)
        if took is not None and took <= LONGEST_STOP:
            self._seconds.put(workload, (*(self._seconds.get(workload) or ()), took)[-KEPT:])

    def forget(self, workload: WorkloadKey) -> None:
        """The workload is gone."""
        self._seconds.pop(workload)

    def view(self) -> Mapping[WorkloadKey, tuple[float, ...]]:
        """What is known, the last to go at the end."""
        return self._seconds.view()


def _took(pod: Pod) -> float | None:
    """Seconds that a pod took, by its own times, since news of its end may come late.

    None if its containers did not run until it was told to stop, or had not all ended before its object went: such as
    never ran or had failed, and those that were deleted by force, or with their node.
    """
    main = [status for status in pod.containers if not status.init]
    if pod.stopping_since is None or not main or any(one.phase is not ContainerPhase.TERMINATED for one in main):
        return None
    ends = [one.finished_at for one in main if one.started_at is not None and one.finished_at is not None]
    if max(ends, default=float("-inf")) < pod.stopping_since - _CLOCKS_DIFFER:
        return None
    return max(0.0, max(ends) - pod.stopping_since) + GOING_SECONDS
