"""When does a pod that was told to stop end, and free its room?"""

from prewarm.demand.progress import STOPPING_SECONDS
from prewarm.model.pods import ContainerPhase, Pod


def expected_end(pod: Pod, now: float, seconds: float = STOPPING_SECONDS) -> float:
    """Unix seconds at which a terminating pod is expected to be gone, not before `now`.

    Its deletionTimestamp is only the latest time: the kubelet kills by then what ignores SIGTERM, and most end long
    before. One that is not gone after `seconds`, which pods of its workload take to stop, is expected to be late by as
    much again, by STOPPING_SECONDS at least.
    """
    if pod.deleted_at is None or _has_ended(pod):
        return now
    told = pod.deleted_at if pod.stopping_since is None else pod.stopping_since
    due = min(told + seconds, pod.deleted_at)
    if due > now:
        return due
    if pod.deleted_at > now:
        return min(now + max(STOPPING_SECONDS, now - due), pod.deleted_at)
    # Its node does not answer: that it takes longer yet is all that is known.
    return now + max(STOPPING_SECONDS, now - pod.deleted_at)


def _has_ended(pod: Pod) -> bool:
    """Whether no container runs any more: the kubelet is about to let the object go."""
    main = [status for status in pod.containers if not status.init]
    return bool(main) and all(status.phase is ContainerPhase.TERMINATED for status in main)
