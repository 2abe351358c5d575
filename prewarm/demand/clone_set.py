"""The pods of a CloneSet, which controls them itself, sorted as those of a Deployment are by their ReplicaSets."""

from msgspec.structs import replace

from prewarm.demand.revisions import is_current, own_pods
from prewarm.demand.rollout import Stage
from prewarm.demand.shapes import MAX_AHEAD
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload

_OLD = "/old"
"""Marks what stands for the ReplicaSet of old pods; no uid has a slash."""


def clone_set_stage(snapshot: ClusterSnapshot, workload: Workload) -> Stage:
    """Pods of the wanted revision and of others. Those that the partition keeps count as neither.

    The order in which old pods are deleted for an update is taken for that of a ReplicaSet: both begin with what is
    least active.
    """
    new: list[Pod] = []
    old: list[Pod] = []
    terminating: list[Pod] = []
    for pod in own_pods(snapshot, workload):
        if pod.deleted_at is not None:
            terminating.append(pod)
        else:
            (new if is_current(workload, pod) else old).append(pod)
    kept = min(workload.partition, len(old), workload.replicas)
    old.sort(key=lambda pod: (pod.ready_at is not None, pod.key))
    going = tuple(sorted(old[: len(old) - kept], key=lambda pod: pod.key))
    replicas = min(workload.replicas - kept, len(new) + len(old) + MAX_AHEAD)
    terminating.sort(key=lambda pod: (pod.deleted_at or 0.0, pod.key))
    stand_in = replace(workload, uid=f"{workload.uid}{_OLD}", replicas=len(going))
    return Stage(
        workload=replace(workload, replicas=replicas),
        current=workload,
        old=(stand_in,),
        new_pods=tuple(sorted(new, key=lambda pod: pod.key)),
        old_pods={stand_in.uid: going},
        terminating=tuple(terminating),
    )
