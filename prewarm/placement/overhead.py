"""What a RuntimeClass adds to its pods: admission writes it into pods, so templates do not tell, but other pods do."""

from itertools import chain

from msgspec.structs import replace

from prewarm.model.pods import PodShape, Resources
from prewarm.model.snapshot import ClusterSnapshot


def with_overhead(shape: PodShape, namespace: str, snapshot: ClusterSnapshot) -> PodShape:
    """A template's shape as pods of it have it, as far as some pod of the same RuntimeClass is known.

    Found at once in a namespace whose pods have the class; all pods are looked at before the first one of a class.
    """
    if not shape.runtime_class or shape.overhead != Resources():
        return shape
    near = snapshot.pods_by_namespace.get(namespace, {}).values()
    found = (pod.shape for pod in chain(near, snapshot.pods.values()) if pod.shape.runtime_class == shape.runtime_class)
    overhead = next(found, shape).overhead
    if overhead == Resources():
        return shape
    return replace(
        shape,
        overhead=overhead,
        requests=_sum(shape.requests, overhead),
        scoring_milli_cpu=shape.scoring_milli_cpu + overhead.milli_cpu,
        scoring_memory=shape.scoring_memory + overhead.memory,
    )


def _sum(one: Resources, other: Resources) -> Resources:
    extended = dict(one.extended)
    for name, amount in other.extended:
        extended[name] = extended.get(name, 0) + amount
    return Resources(
        one.milli_cpu + other.milli_cpu,
        one.memory + other.memory,
        one.ephemeral_storage + other.ephemeral_storage,
        tuple(sorted(extended.items())),
    )
