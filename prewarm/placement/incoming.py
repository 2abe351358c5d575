"""Pods to be placed, as the scheduler would see them: labels complete, and the selector of their owner."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.plans import Demand
from prewarm.model.pods import Pod, PodAffinityTerm, PodShape, WeightedPodAffinityTerm
from prewarm.model.scheduling import with_priority
from prewarm.model.selectors import LabelSelector, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement.overhead import with_overhead

_HASH_LABELS = {"Deployment": "pod-template-hash", "Rollout": "rollouts-pod-template-hash"}
"""By kind whose pods are owned by ReplicaSets: the label that tells one ReplicaSet's pods from another's."""


class PodView(Protocol):
    """What spread, affinity and ports read of any pod, existing or imagined."""

    @property
    def namespace(self) -> str:
        """metadata.namespace."""

    @property
    def labels(self) -> Mapping[str, str]:
        """metadata.labels."""

    @property
    def shape(self) -> PodShape:
        """The pod spec's scheduling side."""


class IncomingPod(Struct, frozen=True):
    """A pod without a node."""

    namespace: str
    labels: Mapping[str, str]
    shape: PodShape
    owner_selector: LabelSelector | None = None
    """Of the owning ReplicaSet or StatefulSet: the default spread constraints use it; None for other owners."""
    owner_uid: str = ""
    """Whose pods alone can match `owner_selector`; "" if that is not known."""


def of_demand(demand: Demand, snapshot: ClusterSnapshot) -> IncomingPod:
    """The pods of a demand, as the API server would complete them."""
    pod = _from_template(demand, snapshot)
    shape = with_overhead(_with_label_keys(pod.shape, pod.labels), pod.namespace, snapshot)
    return replace(pod, shape=with_priority(shape, snapshot.priority_classes))


def _from_template(demand: Demand, snapshot: ClusterSnapshot) -> IncomingPod:
    """A ReplicaSet that does not exist yet is given a pod-template-hash that no pod has."""
    key = demand.workload
    labels = {**demand.template.labels, **dict(demand.revision_labels)}
    shape = demand.template.shape
    if key.kind in _HASH_LABELS:
        hash_label = _HASH_LABELS[key.kind]
        owner = _replica_set(demand, hash_label, labels.get(hash_label), snapshot)
        if owner is not None and owner.selector is not None:
            labels = {**labels, **owner.template.labels}
            return IncomingPod(key.namespace, labels, shape, owner.selector, owner.uid)
        labels.setdefault(hash_label, f"new-{demand.revision}")
        selector = LabelSelector(match_labels=((hash_label, labels[hash_label]),))
        return IncomingPod(key.namespace, labels, shape, selector)
    if key.kind == "ReplicaSet":
        return _owned(key.namespace, labels, shape, snapshot.replica_sets.get((key.namespace, key.name)))
    if key.kind == "StatefulSet":
        return _owned(key.namespace, labels, shape, snapshot.workloads.get(key))
    return IncomingPod(key.namespace, labels, shape)


def _with_label_keys(shape: PodShape, labels: Mapping[str, str]) -> PodShape:
    """Merge the label keys of pod affinity into its selectors (registry/core/pod/strategy.go)."""

    def term(one: PodAffinityTerm) -> PodAffinityTerm:
        if one.selector is None or not (one.match_label_keys or one.mismatch_label_keys):
            return one
        extra = tuple(
            Requirement(key, operator, (labels[key],))
            for operator, keys in ((Operator.IN, one.match_label_keys), (Operator.NOT_IN, one.mismatch_label_keys))
            for key in keys
            if key in labels
        )
        selector = LabelSelector(one.selector.match_labels, one.selector.match_expressions + extra)
        return replace(one, selector=selector)

    def weighted(one: WeightedPodAffinityTerm) -> WeightedPodAffinityTerm:
        return replace(one, term=term(one.term))

    held = shape.affinity
    if not held.concerns_pods:
        return shape
    merged = replace(
        held,
        required_pod_affinity=tuple(map(term, held.required_pod_affinity)),
        preferred_pod_affinity=tuple(map(weighted, held.preferred_pod_affinity)),
        required_pod_anti_affinity=tuple(map(term, held.required_pod_anti_affinity)),
        preferred_pod_anti_affinity=tuple(map(weighted, held.preferred_pod_anti_affinity)),
    )
    return replace(shape, affinity=merged)


def of_pod(pod: Pod, snapshot: ClusterSnapshot) -> IncomingPod:
    """A pod that waits to be scheduled."""
    owner: Workload | None = None
    if pod.owner is not None and pod.owner.kind == "ReplicaSet":
        owner = snapshot.replica_sets.get((pod.namespace, pod.owner.name))
    elif pod.owner is not None and pod.owner.kind == "StatefulSet" and pod.owner.api_version.startswith("apps/"):
        owner = snapshot.workloads.get(WorkloadKey("StatefulSet", pod.namespace, pod.owner.name))
    return _owned(pod.namespace, pod.labels, pod.shape, owner)


def _owned(namespace: str, labels: Mapping[str, str], shape: PodShape, owner: Workload | None) -> IncomingPod:
    if owner is None or owner.selector is None:
        return IncomingPod(namespace, labels, shape)
    return IncomingPod(namespace, labels, shape, owner.selector, owner.uid)


def _replica_set(demand: Demand, label: str, template_hash: str | None, snapshot: ClusterSnapshot) -> Workload | None:
    owned = snapshot.replica_sets_by_owner.get(demand.workload_uid, {})
    for _, replica_set in sorted(owned.items()):
        if template_hash is not None and replica_set.template.labels.get(label) == template_hash:
            return replica_set
    if template_hash is None:
        return next((rs for _, rs in sorted(owned.items()) if rs.template_hash == demand.revision), None)
    return None
