"""What will a DaemonSet's rollout need? Its nodes are certain, their order is not."""

from prewarm.demand.revisions import is_current, own_pods
from prewarm.demand.shapes import far_ahead, images, start_seconds, stop_seconds
from prewarm.demand.update_order import next_updates
from prewarm.history import History
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.quantities import int_or_percent
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload


def daemon_set_demand(
    snapshot: ClusterSnapshot, workload: Workload, excluded: frozenset[str], history: History
) -> Demand | None:
    """The nodes on which a DaemonSet has still to replace its pod; None if there are none.

    Which node is next depends on the iteration order of a Go map (pkg/controller/daemon/update.go): all are needed as
    early as the first. With OnDelete pods come when somebody deletes the old ones: nobody knows when.

    Raises:
        ValueError: if maxSurge or maxUnavailable cannot be read.
    """
    needed = images(workload.template.shape, excluded)
    nodes = _outdated_nodes(snapshot, workload)
    if not needed or not nodes:
        return None
    asked = workload.key in snapshot.asked
    waits = asked or workload.paused or workload.strategy is UpdateStrategy.ON_DELETE
    now = far_ahead(snapshot.taken_at) if waits else snapshot.taken_at
    together = replaced_at_once(workload)
    step = start_seconds(snapshot, history, workload)
    if not _surge(workload):
        step += stop_seconds(snapshot, history, workload)
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.WHAT_IF if asked else Trigger.ROLLOUT,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=tuple(
            Batch(now + start // together * step, len(group), nodes=group)
            for start in range(0, len(nodes), together)
            if (group := nodes[start : start + together])
        ),
    )


def _outdated_nodes(snapshot: ClusterSnapshot, workload: Workload) -> tuple[str, ...]:
    """Nodes whose pod is of another revision and has no successor there yet (with surge both are there)."""
    settled = workload.observed_generation >= workload.generation and workload.updated_replicas >= workload.replicas
    if settled and workload.key not in snapshot.asked:
        return ()
    if workload.key.kind == "AdvancedDaemonSet":
        return tuple(dict.fromkeys(pod.node_name for pod in next_updates(snapshot, workload)))
    outdated: set[str] = set()
    current: set[str] = set()
    for pod in own_pods(snapshot, workload):
        if pod.node_name:
            (current if is_current(workload, pod) and pod.deleted_at is None else outdated).add(pod.node_name)
    return tuple(sorted(name for name in outdated - current if name in snapshot.nodes))


def replaced_at_once(workload: Workload) -> int:
    """Pods replaced together: maxSurge if there is one, else maxUnavailable, both rounded up, at least 1."""
    unavailable = int_or_percent(workload.max_unavailable, workload.replicas, round_up=True)
    return max(1, _surge(workload) or unavailable)


def _surge(workload: Workload) -> int:
    """Pods that come beside the old ones: then nothing waits for the end of these."""
    return int_or_percent(workload.max_surge, workload.replicas, round_up=True)
