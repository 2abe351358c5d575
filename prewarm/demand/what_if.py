"""What if a workload had other images or more replicas? The same cluster with that one change."""

from collections.abc import Mapping
from hashlib import sha256

from msgspec.structs import replace

from prewarm.model.images import parse_reference
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey

PREDICTED_KINDS = ("Deployment", "StatefulSet", "DaemonSet")
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
    if workload.kind not in PREDICTED_KINDS:
        raise ValueError(f"{workload} cannot be planned: give one of {', '.join(PREDICTED_KINDS)}")
    found = snapshot.workloads.get(workload)
    if found is None:
        raise ValueError(f"{workload} is not in the cluster")
    if workload.kind == "DaemonSet" and replicas is not None:
        raise ValueError(f"{workload} has no replicas: a DaemonSet has one pod on each of its nodes")
    if replicas is not None and not 0 <= replicas <= MAX_REPLICAS:
        raise ValueError(f"replicas {replicas}: give a number from 0 to {MAX_REPLICAS}")
    changed = found if replicas is None else replace(found, replicas=replicas)
    wanted = dict(images or {})
    names = [container.name for container in found.template.shape.containers]
    for name, image in wanted.items():
        if name not in names:
            raise ValueError(f"{workload} has no container {name!r}; it has: {', '.join(names) or 'none'}")
        parse_reference(image)
    containers = tuple(
        replace(container, image=wanted.get(container.name, container.image))
        for container in found.template.shape.containers
    )
    if containers != found.template.shape.containers:
        shape = replace(found.template.shape, containers=containers)
        digest = sha256(repr((found.template_hash, sorted(wanted.items()))).encode()).hexdigest()
        changed = replace(
            changed, template=replace(found.template, shape=shape), template_hash=digest[:16], update_revision=""
        )
    return replace(snapshot, workloads={**snapshot.workloads, workload: changed}, asked=snapshot.asked | {workload})
