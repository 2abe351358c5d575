"""What will follow from a canary that is a Deployment of its own? Those that share its label get its images."""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from prewarm.demand.rollout import rollout_demand, stage
from prewarm.demand.shapes import fails
from prewarm.demand.what_if import with_images
from prewarm.history import History
from prewarm.model.image_caches import Canaries, Policy
from prewarm.model.images import canonical
from prewarm.model.plans import Demand, SkipReason, Trigger
from prewarm.model.quantities import int_or_percent
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload

MAX_CANARIES = 2
"""Canaries of one Deployment that are followed at a time, the first by name."""


def labels_of(workload: Workload) -> Mapping[str, str]:
    """A Deployment's labels and those of its pods; its own go first."""
    return {**workload.template.labels, **workload.labels}


def canaries_of(snapshot: ClusterSnapshot, stable: Workload, canaries: Canaries) -> Iterator[Workload]:
    """Deployments that are on trial for another one: in its namespace, with its value of the shared label, by name."""
    labels = labels_of(stable)
    value = labels.get(canaries.shared_label)
    if value is None or canaries.selector.matches(labels):
        return
    for _, other in sorted(snapshot.deployments_by_namespace.get(stable.key.namespace, {}).items()):
        if other.key == stable.key or other.deleted_at is not None or other.owner is not None:
            continue
        found = labels_of(other)
        if found.get(canaries.shared_label) == value and canaries.selector.matches(found):
            yield other


def plain_canary_demands(
    snapshot: ClusterSnapshot, stable: Workload, policy: Policy, excluded: frozenset[str], history: History
) -> tuple[Demand, ...]:
    """The rollouts that a Deployment has before it while canaries run with other images; nobody knows when they come.

    They end with the canary: once it is gone, scaled to zero, or runs what the stable Deployment runs. Containers are
    matched by name; those that only the canary has are its own.

    Raises:
        ValueError: if maxSurge or maxUnavailable of the Deployment, or the policy's minUpdatedReadyPods cannot be read.
    """
    if policy.canaries is None:
        return ()
    made: dict[str, Demand] = {}
    for canary in canaries_of(snapshot, stable, policy.canaries):
        changed = _promoted(stable, canary)
        if changed is None or not canary.replicas or len(made) >= MAX_CANARIES:
            continue
        asked = snapshot.asked | {stable.key}
        later = replace(snapshot, workloads={**snapshot.workloads, stable.key: changed}, asked=asked)
        found = rollout_demand(later, stage(later, changed), excluded, history)
        if found is not None and found.revision not in made:
            withheld = None if _proven(snapshot, canary, policy) else SkipReason.CANARY_UNPROVEN
            made[found.revision] = replace(found, trigger=Trigger.ANNOUNCED, withheld=withheld)
    return tuple(made.values())


def _promoted(stable: Workload, canary: Workload) -> Workload | None:
    """The stable Deployment with its canary's images; None if it has them, or they cannot be read."""
    own = {container.name: container.image for container in stable.template.shape.containers}
    images = {
        container.name: container.image
        for container in canary.template.shape.containers
        if container.name in own and canonical(container.image) != canonical(own[container.name])
    }
    try:
        changed = with_images(stable, images)
    except ValueError:
        return None
    return None if changed is stable else changed


def _proven(snapshot: ClusterSnapshot, canary: Workload, policy: Policy) -> bool:
    """Whether as many of its pods are ready as minUpdatedReadyPods asks for, all if it says nothing, and none fails."""
    pods = stage(snapshot, canary).new_pods
    asked = int_or_percent(policy.min_updated_ready_pods, canary.replicas, round_up=True) or canary.replicas
    ready = sum(pod.ready_at is not None for pod in pods)
    return ready >= min(canary.replicas, asked) and not any(map(fails, pods))
