"""Which containers do a workload's pods have that its template does not, such as the sidecar of a mesh?"""

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from prewarm.demand.revisions import is_current
from prewarm.demand.shapes import images
from prewarm.model.plans import Demand
from prewarm.model.pods import ContainerShape, Pod, PodShape, PodTemplate, Resources
from prewarm.model.progressive import InPlace
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import Workload

MAX_INJECTED = 16
"""Containers beyond the template's that count, in the order of the pod."""
_NONE: Mapping[ObjectKey, Pod] = {}


class Injected(Struct, frozen=True):
    """What admission adds to a pod of a workload."""

    containers: tuple[ContainerShape, ...] = ()
    requests: Resources = Resources()
    """What the pod requests beyond its template."""
    scoring_milli_cpu: int = 0
    scoring_memory: int = 0


def injected(snapshot: ClusterSnapshot, workload: Workload) -> Injected:
    """What the newest pod of a workload has beyond the template that it was made from.

    A pod tells only where that template is known: its ReplicaSet's, its Job's, or the workload's own if it is of the
    present revision. Otherwise a container that the new template dropped would be taken for an injected one. A finished
    pod tells where there is no other, as between two runs of a CronJob. Ephemeral containers are no part of a shape.
    """
    newest = max(
        _made(snapshot, workload),
        key=lambda made: (not made[0].finished, made[0].created_at, made[0].key),
        default=None,
    )
    return Injected() if newest is None else _beyond(newest[0].shape, newest[1].shape)


def with_injected(demand: Demand, workload: Workload, added: Injected, excluded: frozenset[str]) -> Demand:
    """The demand for pods as they will be admitted, unless they are there already and change in place.

    A container that the new template has itself is the template's.
    """
    if demand.is_fixed and workload.in_place is not InPlace.NEVER:
        return demand
    shape = demand.template.shape
    own = {container.name for container in shape.containers}
    containers = tuple(container for container in added.containers if container.name not in own)
    if not containers:
        return demand
    whole = replace(
        shape,
        containers=(*shape.containers, *containers),
        requests=_sum(shape.requests, added.requests),
        scoring_milli_cpu=shape.scoring_milli_cpu + added.scoring_milli_cpu,
        scoring_memory=shape.scoring_memory + added.scoring_memory,
    )
    known = frozenset(demand.images)
    needed = images(whole, excluded)
    return replace(
        demand,
        images=needed,
        injected=tuple(image for image in needed if image not in known),
        template=replace(demand.template, shape=whole),
    )


def _made(snapshot: ClusterSnapshot, workload: Workload) -> Iterator[tuple[Pod, PodTemplate]]:
    """Pods with the template that each was made from."""
    for pod in snapshot.pods_by_owner.get(workload.uid, _NONE).values():
        if is_current(workload, pod):
            yield pod, workload.template
    for made in snapshot.replica_sets_by_owner.get(workload.uid, {}).values():
        for pod in snapshot.pods_by_owner.get(made.uid, _NONE).values():
            yield pod, made.template


def _beyond(pod: PodShape, template: PodShape) -> Injected:
    own = {container.name for container in template.containers}
    containers = tuple(container for container in pod.containers if container.name not in own)[:MAX_INJECTED]
    if not containers:
        return Injected()
    mine, theirs = pod.requests, template.requests
    return Injected(
        containers,
        Resources(
            milli_cpu=max(0, mine.milli_cpu - theirs.milli_cpu),
            memory=max(0, mine.memory - theirs.memory),
            ephemeral_storage=max(0, mine.ephemeral_storage - theirs.ephemeral_storage),
        ),
        scoring_milli_cpu=max(0, pod.scoring_milli_cpu - template.scoring_milli_cpu),
        scoring_memory=max(0, pod.scoring_memory - template.scoring_memory),
    )


def _sum(one: Resources, other: Resources) -> Resources:
    return replace(
        one,
        milli_cpu=one.milli_cpu + other.milli_cpu,
        memory=one.memory + other.memory,
        ephemeral_storage=one.ephemeral_storage + other.ephemeral_storage,
    )
