"""What a kubelet checks before it takes a bound pod (pkg/kubelet/lifecycle/predicate.go, 1.36)."""

from collections.abc import Iterable

from msgspec import Struct

from prewarm.model.pods import Resources, TaintEffect
from prewarm.simulation.specs import NodeProfile, PodSpec


class Rejection(Struct, frozen=True):
    """status.reason and the event's message of a pod that the kubelet does not take."""

    reason: str
    message: str


def check(pod: PodSpec, node: NodeProfile, active: Iterable[Resources], *, disk_pressure: bool) -> Rejection | None:
    """Why the kubelet rejects the pod, or None. `active` are the requests of its pods that have not ended.

    NoSchedule taints, cordons, spread and pod affinity are the scheduler's business alone.
    """
    if disk_pressure and pod.priority < 2_000_000_000:
        return Rejection("Evicted", "The node had condition: [DiskPressure]. ")
    requests = list(active)
    if len(requests) + 1 > node.max_pods:
        return _insufficient("pods", 1, len(requests), node.max_pods)
    wanted, room = pod.requests, node.allocatable
    for name, attribute in (("cpu", "milli_cpu"), ("memory", "memory"), ("ephemeral-storage", "ephemeral_storage")):
        request, capacity = getattr(wanted, attribute), getattr(room, attribute)
        # An allocatable of 0 ephemeral storage means that the node profile does not say.
        if not request or (attribute == "ephemeral_storage" and not capacity):
            continue
        used = sum(getattr(other, attribute) for other in requests)
        if request + used > capacity:
            return _insufficient(name, request, used, capacity)
    return _extended(wanted, room, requests) or _constraints(pod, node)


def _extended(wanted: Resources, room: Resources, requests: list[Resources]) -> Rejection | None:
    capacities = dict(room.extended)
    for name, request in wanted.extended:
        # The kubelet ignores extended resources that its node does not know.
        if name in capacities:
            used = sum(dict(other.extended).get(name, 0) for other in requests)
            if request + used > capacities[name]:
                return _insufficient(name, request, used, capacities[name])
    return None


def _constraints(pod: PodSpec, node: NodeProfile) -> Rejection | None:
    terms = pod.affinity.required_node_terms
    selected = all(node.labels.get(key) == value for key, value in pod.node_selector)
    if not selected or (terms is not None and not any(term.matches(node.name, node.labels) for term in terms)):
        return Rejection(
            "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        )
    for taint in node.taints:
        if taint.effect is TaintEffect.NO_EXECUTE and not any(t.tolerates(taint) for t in pod.tolerations):
            return Rejection(
                "TaintToleration",
                "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
            )
    return None


def _insufficient(resource: str, requested: int, used: int, capacity: int) -> Rejection:
    return Rejection(
        f"OutOf{resource}",
        f"Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}",
    )
