"""Which workloads to plan now: changed intentions at once, everything else within a share of the processor."""

from collections.abc import Collection

from msgspec import Struct

from prewarm.cluster.changes import Changes
from prewarm.model.nodes import Node
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement import JOINING_SECONDS

URGENT_SECONDS = 0.1
"""For about so long changed intentions are planned in one look. Those of fifty workloads that change together would
keep the first one's pulls waiting for the last one's plan, and the event loop from renewing the lease."""
URGENT_SHARE = 2.0
"""But for at least so many times as long as the rest of a look takes: many looks must not cost more than the plans."""
PROGRESS_GAP_SECONDS = 0.2
PROGRESS_SHARE = 0.2
"""Most of one processor that following rollouts may take."""
SURROUNDINGS_GAP_SECONDS = 2.0
SURROUNDINGS_SHARE = 0.03
"""Most of one processor that following the rest of the cluster may take, for plans that could change with it."""

_Intention = tuple[str, int, int, bool, tuple[tuple[str, str], ...]]


class Due(Struct, frozen=True):
    """What to plan."""

    workloads: frozenset[WorkloadKey] | None = frozenset()
    """None = all."""
    urgent: frozenset[WorkloadKey] = frozenset()
    """Those among them whose owners asked for something new."""
    waiting: frozenset[WorkloadKey] = frozenset()
    """Others whose owners did: they come in the next looks."""

    def __bool__(self) -> bool:
        return self.workloads is None or bool(self.workloads)


class Pace:
    """Collects changes until it is time to plan for them."""

    def __init__(self, resync_seconds: float) -> None:
        self._resync = resync_seconds
        self._everything = True
        self._resync_at = 0.0
        self._intentions: dict[WorkloadKey, _Intention] = {}
        self._urgent: dict[WorkloadKey, None] = {}
        """Changed intentions that were not planned yet, in the order in which they were seen."""
        self._seconds_each = 0.0
        self._planned_at = 0.0
        self._active: set[WorkloadKey] = set()
        self._expecting: set[WorkloadKey] = set()
        self._progressed: set[WorkloadKey] = set()
        self._progress_at = 0.0
        self._surroundings = False
        self._surroundings_at = 0.0
        self._later: dict[WorkloadKey, float] = {}

    def plan_everything(self) -> None:
        """Plan all workloads next: an instance took over, or a plan could not be carried out."""
        self._everything = True

    def plan_again(self, workloads: Collection[WorkloadKey]) -> None:
        """Plan these next time: what followed from their last plan failed."""
        self._progressed.update(workloads)

    def due(self, changes: Changes, snapshot: ClusterSnapshot, now: float) -> Due:
        """What to plan now that these changes came."""
        if changes.policies or changes.namespaces:
            # Either may cover other workloads than before.
            self._everything = True
        if self._everything or now >= self._resync_at:
            fresh = self._note(snapshot.workloads.keys() | self._intentions.keys(), snapshot)
            self._everything, self._resync_at = False, now + self._resync
            self._progressed.clear()
            self._surroundings = False
            fresh |= self._urgent.keys()
            self._urgent.clear()
            return Due(None, fresh)
        rest = now - self._planned_at if self._urgent else 0.0
        self._urgent.update(dict.fromkeys(sorted(self._note(changes.workloads, snapshot))))
        self._progressed |= changes.workloads - self._urgent.keys()
        if any(_joins(snapshot.nodes.get(name), snapshot.taken_at) for name in changes.nodes):
            # Pods that fit nowhere will be there as soon as the node takes pods: it should be warm by then.
            self._progressed |= self._expecting
        self._surroundings |= bool(changes.nodes or changes.used_nodes) and bool(self._active)
        urgent = self._next_urgent(max(URGENT_SECONDS, URGENT_SHARE * rest))
        if self._urgent:
            return Due(urgent, urgent, frozenset(self._urgent))
        # By the snapshot's clock, which is the schedules'; the loop looks at it every half minute at least.
        wanted = urgent | {key for key, at in self._later.items() if at <= snapshot.taken_at}
        if self._progressed and now >= self._progress_at:
            wanted |= self._progressed
            self._progressed.clear()
        if self._surroundings and now >= self._surroundings_at:
            wanted |= self._active
            self._surroundings = False
        return Due(frozenset(wanted), urgent)

    def planned(self, due: Due, plan: Plan, started: float, ended: float) -> None:
        """Take note of a plan and of what it cost."""
        needed = {entry.demand.workload for entry in plan.demands}
        self._active = needed if due.workloads is None else (self._active - due.workloads) | needed
        expecting = {entry.demand.workload for entry in plan.demands if entry.new_nodes}
        self._expecting = expecting if due.workloads is None else (self._expecting - due.workloads) | expecting
        for key in tuple(self._later) if due.workloads is None else due.workloads:
            self._later.pop(key, None)
        self._later.update(plan.later)
        took = ended - started
        if due.workloads:
            self._seconds_each = took / len(due.workloads)
        self._planned_at = ended
        self._progress_at = ended + max(PROGRESS_GAP_SECONDS, took * (1 / PROGRESS_SHARE - 1))
        self._surroundings_at = ended + max(SURROUNDINGS_GAP_SECONDS, took * (1 / SURROUNDINGS_SHARE - 1))

    def wake_at(self) -> float:
        """When to look again though nothing changes."""
        times = [self._resync_at]
        if self._progressed:
            times.append(self._progress_at)
        if self._surroundings:
            times.append(self._surroundings_at)
        return 0.0 if self._everything or self._urgent else min(times)

    def _next_urgent(self, seconds: float) -> frozenset[WorkloadKey]:
        """As many changed intentions as this time allows, those seen first; at least one."""
        most = len(self._urgent)
        if self._seconds_each > 0:
            most = max(1, int(seconds / self._seconds_each))
        chosen = list(self._urgent)[:most]
        for key in chosen:
            del self._urgent[key]
        return frozenset(chosen)

    def _note(self, keys: Collection[WorkloadKey], snapshot: ClusterSnapshot) -> frozenset[WorkloadKey]:
        """Remember what the owners of these workloads want; those who want something else than before."""
        fresh = set()
        for key in keys:
            workload = snapshot.workloads.get(key)
            intention = _intention(workload) if workload is not None else None
            if intention != self._intentions.get(key):
                fresh.add(key)
            if intention is None:
                self._intentions.pop(key, None)
            else:
                self._intentions[key] = intention
        return frozenset(fresh)


def _joins(node: Node | None, now: float) -> bool:
    """Whether a node came just now: it may be one that pods are waiting for."""
    return node is not None and node.created_at > now - JOINING_SECONDS


def _intention(workload: Workload) -> _Intention:
    """What only a change of spec or of our annotations changes; revision annotations are the controller's own."""
    wishes = tuple(
        sorted((name, value) for name, value in workload.annotations.items() if name.startswith("prewarm.dev/"))
    )
    return (workload.uid, workload.generation, workload.replicas, workload.deleted_at is not None, wishes)
