"""Which workloads have to be planned again because something changed that is not theirs?"""

from collections.abc import Collection, Iterator

from prewarm.demand.announced import policies_named
from prewarm.demand.plain_canary import labels_of
from prewarm.model.image_caches import Canaries
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import WorkloadKey


def linked(
    snapshot: ClusterSnapshot,
    touched: Collection[WorkloadKey],
    intended: Collection[WorkloadKey],
    image_policies: Collection[ObjectKey],
) -> frozenset[WorkloadKey]:
    """Workloads whose plan follows from others: from canaries that are Deployments, and from Flux's ImagePolicies.

    Args:
        snapshot: the cluster after the changes.
        touched: workloads that changed in any way, their pods included.
        intended: of those, the ones that came, went, or were changed on purpose: they may have been canaries before.
        image_policies: ImagePolicies that changed.
    """
    found = set(_naming(snapshot, image_policies)) if image_policies else set[WorkloadKey]()
    for canaries in {policy.canaries for policy in snapshot.policies.values()}:
        if canaries is not None:
            for key in touched:
                if key.kind == "Deployment":
                    found.update(_tried_by(snapshot, key, canaries, sure=key not in intended))
    return frozenset(found) - frozenset(touched)


def _naming(snapshot: ClusterSnapshot, image_policies: Collection[ObjectKey]) -> Iterator[WorkloadKey]:
    for key, workload in snapshot.workloads.items():
        if not policies_named(workload).isdisjoint(image_policies):
            yield key


def _tried_by(snapshot: ClusterSnapshot, key: WorkloadKey, canaries: Canaries, *, sure: bool) -> Iterator[WorkloadKey]:
    """Deployments that a canary is on trial for; all that may be, if it is not `sure` what it was before."""
    changed = snapshot.workloads.get(key)
    labels = {} if changed is None else labels_of(changed)
    if sure and changed is not None and not canaries.selector.matches(labels):
        return
    for other, workload in snapshot.deployments_by_namespace.get(key.namespace, {}).items():
        value = labels_of(workload).get(canaries.shared_label)
        if value is not None and (not sure or changed is None or value == labels.get(canaries.shared_label)):
            yield other
