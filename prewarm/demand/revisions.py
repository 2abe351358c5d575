"""Which pods of a workload are of the revision that its template asks for?"""

from collections.abc import Iterator, Mapping

from prewarm.model.plans import Demand
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import Workload

REVISION_LABEL = "controller-revision-hash"
"""On pods of StatefulSets, DaemonSets and OpenKruise's kinds."""
_NONE: Mapping[ObjectKey, Pod] = {}


def own_pods(snapshot: ClusterSnapshot, workload: Workload) -> Iterator[Pod]:
    """Unfinished pods that the workload itself controls."""
    for pod in snapshot.pods_by_owner.get(workload.uid, _NONE).values():
        if not pod.finished:
            yield pod


def is_current(workload: Workload, pod: Pod) -> bool:
    """Whether a pod that the workload itself controls has what the template asks for.

    The controller's own revision counts where its status speaks of this generation; until then, and for kinds whose
    status does not name it, the images of the containers decide: others, which a webhook may have added, do not.
    """
    if workload.update_revision and workload.observed_generation >= workload.generation:
        return pod.labels.get(REVISION_LABEL) == workload.update_revision
    images = {container.name: container.image for container in pod.shape.containers}
    return all(
        images.get(container.name, container.image) == container.image
        for container in workload.template.shape.containers
    )


def pods_of_revision(demand: Demand, snapshot: ClusterSnapshot) -> Iterator[Pod]:
    """Pods of the revision that a demand is about which exist and stay."""
    for replica_set in snapshot.replica_sets_by_owner.get(demand.workload_uid, {}).values():
        if replica_set.template_hash == demand.revision:
            for pod in snapshot.pods_by_owner.get(replica_set.uid, _NONE).values():
                if not pod.finished and pod.deleted_at is None:
                    yield pod
    workload = snapshot.workloads.get(demand.workload)
    if workload is None or workload.uid != demand.workload_uid or workload.template_hash != demand.revision:
        return
    for pod in own_pods(snapshot, workload):
        if pod.deleted_at is None and is_current(workload, pod):
            yield pod
