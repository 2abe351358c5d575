"""In which order does OpenKruise update pods? Least active ones first, then priorities, then scattering."""

from collections.abc import Sequence

from prewarm.demand.revisions import is_current, own_pods
from prewarm.demand.stateful_set import ordinal
from prewarm.model.pods import Pod, PodPhase
from prewarm.model.progressive import PriorityTerm, UpdateOrder
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload

_PHASES = {PodPhase.PENDING: 0, PodPhase.UNKNOWN: 1, PodPhase.RUNNING: 2}


def next_updates(snapshot: ClusterSnapshot, workload: Workload) -> list[Pod]:
    """Pods on nodes of the cluster that the update has still to take, in order; those that a partition keeps left out.

    A partition counts pods that keep their revision; that of an ordered StatefulSet is an ordinal.
    """
    pods = [pod for pod in own_pods(snapshot, workload) if pod.deleted_at is None]
    updated = sum(is_current(workload, pod) for pod in pods)
    outdated = [pod for pod in pods if pod.node_name in snapshot.nodes and not is_current(workload, pod)]
    order = workload.update_order
    if order.selector is not None:
        outdated = [pod for pod in outdated if order.selector.matches(snapshot.nodes[pod.node_name].labels)]
    sequence = update_sequence(workload, outdated)
    if workload.key.kind == "AdvancedStatefulSet" and not order.unordered:
        first = workload.first_ordinal + workload.partition
        return [pod for pod in sequence if (ordinal(pod.name) or 0) >= first]
    return sequence[: max(0, workload.replicas - workload.partition - updated)]


def update_sequence(workload: Workload, outdated: Sequence[Pod]) -> list[Pod]:
    """Pods of a CloneSet, Advanced StatefulSet or Advanced DaemonSet in the order in which they are updated.

    StatefulSets go by falling ordinal unless unorderedUpdate is set, DaemonSets by falling node name
    (filterDaemonPodsNodeToUpdate), CloneSets as sortUpdateIndexes says (pkg/controller/cloneset/sync).
    """
    order = workload.update_order
    if workload.key.kind == "AdvancedDaemonSet":
        return sorted(outdated, key=lambda pod: (pod.node_name, pod.key), reverse=True)
    if workload.key.kind == "AdvancedStatefulSet":
        pods = sorted(outdated, key=lambda pod: -(ordinal(pod.name) or 0))
        return _by_priority(order, pods) if order.unordered else pods
    return _scattered(order, _by_priority(order, sorted(outdated, key=_activity)))


def _activity(pod: Pod) -> tuple[bool, int, bool, float, int, float, str]:
    """Key of ActivePods (pkg/controller/controller_utils.go): what is least useful comes first."""
    restarts = max((status.restart_count for status in pod.containers if not status.init), default=0)
    return (
        pod.node_name != "",
        _PHASES.get(pod.phase, 0),
        pod.ready_at is not None,
        -(pod.ready_at or 0.0),
        -restarts,
        -pod.created_at,
        pod.uid,
    )


def _by_priority(order: UpdateOrder, pods: list[Pod]) -> list[Pod]:
    if not order.priority:
        return pods
    weights = [term for term in order.priority if not term.ordered_key]
    keys = [term for term in order.priority if term.ordered_key]

    def rank(pod: Pod) -> tuple[int, list[tuple[bool, int]]]:
        total = sum(term.weight for term in weights if term.selector is not None and term.selector.matches(pod.labels))
        return (-total, [_number(term, pod) for term in keys])

    return sorted(pods, key=rank)


def _number(term: PriorityTerm, pod: Pod) -> tuple[bool, int]:
    """Pods with the label before those without, larger numbers at the end of its value before smaller ones."""
    value = pod.labels.get(term.ordered_key)
    if value is None:
        return (True, 0)
    digits = value[len(value.rstrip("0123456789")) :]
    return (False, -int(digits) if digits else 0)


def _scattered(order: UpdateOrder, pods: list[Pod]) -> list[Pod]:
    """Pods with a label's value spread evenly among the others."""
    for key, value in order.scatter:
        marked = [pod for pod in pods if pod.labels.get(key) == value]
        others = [pod for pod in pods if pod.labels.get(key) != value]
        places = [
            ((index + 0.5) / len(group), turn, index, pod)
            for turn, group in enumerate((marked, others))
            for index, pod in enumerate(group)
        ]
        pods = [pod for *_, pod in sorted(places, key=lambda place: place[:3])]
    return pods
