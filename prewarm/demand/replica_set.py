"""The pods of a ReplicaSet that nothing controls."""

from msgspec.structs import replace

from prewarm.demand.revisions import own_pods
from prewarm.demand.rollout import Stage
from prewarm.demand.shapes import MAX_AHEAD
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload


def replica_set_stage(snapshot: ClusterSnapshot, workload: Workload) -> Stage:
    """All its pods as those of one revision: a changed template is for pods to come, existing ones are not replaced."""
    pods = [pod for pod in own_pods(snapshot, workload) if pod.deleted_at is None]
    replicas = min(workload.replicas, len(pods) + MAX_AHEAD)
    return Stage(
        workload=replace(workload, replicas=replicas),
        current=workload,
        old=(),
        new_pods=tuple(sorted(pods, key=lambda pod: pod.key)),
        old_pods={},
        terminating=(),
    )
