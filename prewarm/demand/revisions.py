"""Which pods of a workload are of the revision that its template asks for?"""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from prewarm.model.plans import Demand
from prewarm.model.pods import Pod, PodTemplate
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import Workload, WorkloadKey

REVISION_LABEL = "controller-revision-hash"
"""On pods of StatefulSets, DaemonSets and OpenKruise's kinds."""
ROLLOUT_HASH_LABEL = "rollouts-pod-template-hash"
"""On ReplicaSets and pods of Argo Rollouts."""
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
        return same_revision(pod.labels.get(REVISION_LABEL, ""), workload.update_revision)
    images = {container.name: container.image for container in pod.shape.containers}
    return all(
        images.get(container.name, container.image) == container.image
        for container in workload.template.shape.containers
    )


def same_revision(label: str, revision: str) -> bool:
    """Whether a pod's label names a revision: OpenKruise writes its name or, by feature gate, the hash that ends it."""
    return label == revision or (bool(label) and revision.endswith(f"-{label}"))


def with_template(snapshot: ClusterSnapshot, workload: Workload) -> Workload:
    """The workload with the template of the Deployment that an Argo Rollout refers to, if it does."""
    if workload.rollout is None or not workload.rollout.workload_ref or workload.template.shape.containers:
        return workload
    key = WorkloadKey("Deployment", workload.key.namespace, workload.rollout.workload_ref)
    referred = snapshot.workloads.get(key)
    if referred is None:
        return workload
    selector = workload.selector or referred.selector
    return replace(workload, template=referred.template, template_hash=referred.template_hash, selector=selector)


def rollout_revision(snapshot: ClusterSnapshot, workload: Workload) -> Workload | None:
    """The ReplicaSet of an Argo Rollout that has its template's images; None until it is created.

    The controller's hash in the status decides between several; hashes of templates as written do not tell, since the
    API server completes that of a ReplicaSet and leaves that of a custom resource as it is.
    """
    if workload.rollout is None:
        return None
    wanted = _images(workload.template)
    alike = [
        replica_set
        for replica_set in snapshot.replica_sets_by_owner.get(workload.uid, {}).values()
        if _images(replica_set.template) == wanted
    ]
    for replica_set in alike:
        if workload.rollout.current_hash and rollout_hash(replica_set) == workload.rollout.current_hash:
            return replica_set
    return max(alike, key=lambda found: (found.created_at, found.key.name), default=None)


def rollout_hash(replica_set: Workload) -> str:
    """The hash by which an Argo Rollout names one of its ReplicaSets."""
    return replica_set.labels.get(ROLLOUT_HASH_LABEL, "")


def _images(template: PodTemplate) -> dict[str, str]:
    return {container.name: container.image for container in template.shape.containers}


def pods_of_revision(demand: Demand, snapshot: ClusterSnapshot) -> Iterator[Pod]:
    """Pods of the revision that a demand is about which exist and stay."""
    found = snapshot.workloads.get(demand.workload)
    workload = None if found is None or found.uid != demand.workload_uid else with_template(snapshot, found)
    wanted = workload is not None and workload.template_hash == demand.revision
    current = rollout_revision(snapshot, workload) if workload is not None and wanted else None
    for replica_set in snapshot.replica_sets_by_owner.get(demand.workload_uid, {}).values():
        if replica_set.template_hash == demand.revision or replica_set is current:
            for pod in snapshot.pods_by_owner.get(replica_set.uid, _NONE).values():
                if not pod.finished and pod.deleted_at is None:
                    yield pod
    if workload is None or not wanted:
        return
    for pod in own_pods(snapshot, workload):
        if pod.deleted_at is None and is_current(workload, pod):
            yield pod
