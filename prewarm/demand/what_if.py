"""What if a workload had other images or more replicas? The same cluster with that one change."""

from collections.abc import Mapping
from hashlib import sha256

from msgspec.structs import replace

from prewarm.demand.revisions import with_template
from prewarm.model.images import parse_reference
from prewarm.model.progressive import PRIMARY_SUFFIX
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey

PREDICTED_KINDS = (
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "CloneSet",
    "AdvancedStatefulSet",
    "AdvancedDaemonSet",
    "Rollout",
    "ReplicaSet",
    "CronJob",
    "Job",
)
"""Kinds of which the next pods are predicted."""
MAX_REPLICAS = 1_000_000


def what_if(
    snapshot: ClusterSnapshot,
    workload: WorkloadKey,
    *,
    replicas: int | None = None,
    images: Mapping[str, str] | None = None,
) -> ClusterSnapshot:
    """The snapshot as if a person had changed the workload; it counts as opted in.

    Args:
        snapshot: the cluster as it is.
        workload: the workload to change.
        replicas: spec.replicas to plan with; None = as it is.
        images: new image by container name; an image volume goes by its volume's name.

    Raises:
        ValueError: if the workload's kind is not predicted, it or a container is not there, an image is no reference,
            or replicas are negative or asked of a DaemonSet.
    """
    if workload.kind == "Canary":
        primary = f"deployment/{workload.namespace}/NAME{PRIMARY_SUFFIX}"
        raise ValueError(f"{workload} has no pods of its own: give the Deployment that Flagger made, {primary}")
    if workload.kind not in PREDICTED_KINDS:
        raise ValueError(f"{workload} cannot be planned: give one of {', '.join(PREDICTED_KINDS)}")
    found = snapshot.workloads.get(workload)
    if found is None:
        raise ValueError(f"{workload} is not in the cluster")
    found = with_template(snapshot, found)
    if workload.kind in {"DaemonSet", "AdvancedDaemonSet"} and replicas is not None:
        raise ValueError(f"{workload} has no replicas: a DaemonSet has one pod on each of its nodes")
    if replicas is not None and not 0 <= replicas <= MAX_REPLICAS:
        raise ValueError(f"replicas {replicas}: give a number from 0 to {MAX_REPLICAS}")
    changed = found if replicas is None else replace(found, replicas=replicas)
    changed = with_images(changed, images or {})
    return replace(snapshot, workloads={**snapshot.workloads, workload: changed}, asked=snapshot.asked | {workload})


def with_images(workload: Workload, images: Mapping[str, str]) -> Workload:
    """The workload with other images in its template, under a template hash that follows from them.

    Args:
        workload: as it is; it is returned as it is where nothing changes.
        images: new image by container name; an image volume goes by its volume's name.

    Raises:
        ValueError: if a container is not there or an image is no reference.
    """
    shape = workload.template.shape
    names = [container.name for container in shape.containers]
    for name, image in images.items():
        if name not in names:
            raise ValueError(f"{workload.key} has no container {name!r}; it has: {', '.join(names) or 'none'}")
        parse_reference(image)
    containers = tuple(replace(found, image=images.get(found.name, found.image)) for found in shape.containers)
    if containers == shape.containers:
        return workload
    digest = sha256(repr((workload.template_hash, sorted(images.items()))).encode()).hexdigest()
    template = replace(workload.template, shape=replace(shape, containers=containers))
    rollout = workload.rollout and replace(workload.rollout, current_hash="")
    return replace(workload, template=template, template_hash=digest[:16], update_revision="", rollout=rollout)
