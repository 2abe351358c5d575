"""Which workloads to plan now: changed intentions at once, everything else within a share of the processor."""

from collections.abc import Collection, Mapping

from msgspec import Struct

from prewarm.cluster.changes import Changes
from prewarm.model.nodes import Node
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement import JOINING_SECONDS

URGENT_SECONDS = 0.03
"""For about so long changed intentions are planned in one look; then the pulls that follow from them are ordered. Those
of fifty workloads that change together would keep the first one's pulls waiting for the last one's plan."""
URGENT_SHARE = 2.0
"""But for at least so many times as long as the rest of a look takes: many looks must not cost more than the plans."""
OTHERS_SECONDS = 0.05
"""For about so long other workloads are planned in one look: an intention that changes meanwhile waits for that."""
PROGRESS_GAP_SECONDS = 0.2
PROGRESS_SHARE = 0.2
"""Most of one processor that following rollouts may take, for as long as CREDIT_SECONDS last."""
LASTING_SHARE = 0.05
"""The same in the long run: a rollout is followed closely, fifty at once take their turns."""
CREDIT_SECONDS = 2.0
"""Processor time for which following rollouts may take more than its share in the long run."""
CHEAP_SECONDS = 0.002
"""Plans that take less than this cost the same."""
SURROUNDINGS_GAP_SECONDS = 2.0
SURROUNDINGS_SHARE = 0.03
"""Most of one processor that following the rest of the cluster may take, for plans that could change with it."""

_Intention = tuple[str, int, int, bool, tuple[tuple[str, str], ...]]


class _Begun(Struct, frozen=True):
    """A workload as it was when a long plan for it was begun, and why that was due."""

    workload: Workload | None
    asked: bool
    followed: bool
    surrounded: bool


class Due(Struct, frozen=True):
    """What to plan: everything, or as many of some workloads as a look has time for; the rest stays due."""

    everything: bool = False
    urgent: tuple[WorkloadKey, ...] = ()
    """Workloads whose owners asked for something new, those seen first in front. Others wait for them, unless they
    themselves wait until a long plan is finished."""
    others: tuple[WorkloadKey, ...] = ()
    """Workloads that go on, or whose surroundings did, those that wait longest for what they cost in front."""
    seconds: float = 0.0
    """How long planning some of them should take in this look; one is planned in any case."""

    def __bool__(self) -> bool:
        return self.everything or bool(self.urgent or self.others)


class Pace:
    """Collects changes until it is time to plan for them."""

    def __init__(self, resync_seconds: float) -> None:
        self._resync = resync_seconds
        self._everything = True
        self._resync_at = 0.0
        self._intentions: dict[WorkloadKey, _Intention] = {}
        self._urgent: dict[WorkloadKey, None] = {}
        """Changed intentions that were not planned yet, in the order in which they were seen."""
        self._planned_at = 0.0
        self._active: set[WorkloadKey] = set()
        self._expecting: set[WorkloadKey] = set()
        self._progressed: dict[WorkloadKey, float] = {}
        """Workloads that went on since they were planned, and when they first did."""
        self._costs: dict[WorkloadKey, float] = {}
        """Seconds that the last plan of each active workload took."""
        self._progress_at = 0.0
        self._credit = CREDIT_SECONDS
        self._credited_at = 0.0
        self._surroundings = False
        self._surrounded: dict[WorkloadKey, None] = {}
        """Workloads that are planned because of their surroundings, and were not yet."""
        self._surroundings_at = 0.0
        self._later: dict[WorkloadKey, float] = {}
        self._begun: dict[WorkloadKey, _Begun] = {}
        """Workloads whose long plans are being made."""
        self._waiting: frozenset[WorkloadKey] = frozenset()
        """Workloads that are due, and wait until one of those is finished."""

    @property
    def urgent(self) -> bool:
        """Whether changed intentions wait to be planned, and nothing but time is needed for that."""
        return not self._urgent.keys() <= self._waiting

    def plan_everything(self) -> None:
        """Plan all workloads next: an instance took over, or a plan could not be carried out."""
        self._everything = True

    def plan_again(self, workloads: Collection[WorkloadKey]) -> None:
        """Plan these next time: what followed from their last plan failed."""
        self._follow(workloads, self._planned_at)

    def due(self, changes: Changes, snapshot: ClusterSnapshot, now: float) -> Due:
        """What to plan now that these changes came."""
        if changes.policies or changes.namespaces:
            # Either may cover other workloads than before.
            self._everything = True
        if self._everything or now >= self._resync_at:
            self._note(snapshot.workloads.keys() | self._intentions.keys(), snapshot)
            self._everything, self._resync_at = False, now + self._resync
            return Due(everything=True, urgent=tuple(self._urgent))
        rest = now - self._planned_at if self._urgent else 0.0
        self._note(changes.workloads, snapshot)
        self._follow(changes.workloads - self._urgent.keys(), now)
        if any(_joins(snapshot.nodes.get(name), snapshot.taken_at) for name in changes.nodes):
            # Pods that fit nowhere will be there as soon as the node takes pods: it should be warm by then.
            self._follow(self._expecting, now)
        self._surroundings |= bool(changes.nodes or changes.used_nodes) and bool(self._active)
        urgent = tuple(self._urgent)
        if self.urgent:
            return Due(urgent=urgent, seconds=max(URGENT_SECONDS, URGENT_SHARE * rest))
        return Due(urgent=urgent, others=self._others(snapshot.taken_at, now), seconds=OTHERS_SECONDS)

    def cost(self, key: WorkloadKey) -> float | None:
        """Seconds that the last plan of a workload took; None if nobody knows, or it needed nothing then."""
        return self._costs.get(key)

    def is_active(self, key: WorkloadKey) -> bool:
        """Whether the last plan of a workload asked for something."""
        return key in self._active

    def planned(
        self,
        due: Due,
        plan: Plan,
        started: float,
        ended: float,
        costs: Mapping[WorkloadKey, float] = {},
        waiting: Collection[WorkloadKey] = (),
    ) -> None:
        """Take note of a plan for what was due, or for some of it, and of what it cost.

        Args:
            due: what was due.
            plan: for all, or for some of it.
            started: when.
            ended: when.
            costs: seconds that workloads took one by one, as far as that is known.
            waiting: those that were due and wait until a long plan is finished.
        """
        done = self._all_known() if plan.only is None else frozenset(plan.only)
        self._take_in(plan, done, costs)
        self._rest(
            ended - started,
            ended,
            counts=bool(due.others),
            followed=due.everything or not done.isdisjoint(self._urgent.keys() | self._progressed.keys()),
            surrounded=due.everything or not done.isdisjoint(self._surrounded),
        )
        for queue in (*self._queues, self._begun):
            for key in queue.keys() & done:
                queue.pop(key)
        self._surroundings &= plan.only is not None
        self._later.update(plan.later)
        self._waiting = frozenset(waiting)
        self._planned_at = ended

    def begun(self, key: WorkloadKey, workload: Workload | None) -> None:
        """Take note that a long plan is being made: what changes from now on is due anew."""
        self._begun[key] = _Begun(workload, key in self._urgent, key in self._progressed, key in self._surrounded)
        for queue in self._queues:
            queue.pop(key, None)

    def is_void(self, key: WorkloadKey, workload: Workload | None) -> bool:
        """Whether a long plan that was begun says nothing of the workload as it is now.

        It does not if its pods are others by now, or if everything was planned meanwhile.
        """
        begun = self._begun.get(key)
        return begun is None or not _same_pods(begun.workload, workload)

    def given_up(self, key: WorkloadKey) -> None:
        """Take note that a long plan is not made to its end: what it was for is due anew."""
        self._waiting = frozenset()
        if self._begun.pop(key, None) is not None:
            self._urgent.setdefault(key)

    def finished(self, key: WorkloadKey, plan: Plan, seconds: float, ended: float) -> None:
        """Take note of a long plan that is not void, and of what it cost.

        Raises:
            KeyError: if none was begun.
        """
        begun, self._waiting = self._begun.pop(key), frozenset()
        self._take_in(plan, frozenset((key,)), {key: seconds})
        followed = begun.asked or begun.followed
        self._rest(seconds, ended, counts=not begun.asked, followed=followed, surrounded=begun.surrounded)
        self._later.update(plan.later)

    def wake_at(self) -> float:
        """When to look again though nothing changes."""
        times = [self._resync_at]
        # Whoever waits for a long plan is woken by its end.
        if not self._progressed.keys() <= self._waiting:
            times.append(self._progress_at)
        if not self._surrounded.keys() <= self._waiting or (self._surroundings and not self._surrounded):
            times.append(self._surroundings_at)
        return 0.0 if self._everything or self.urgent else min(times)

    @property
    def _queues(self) -> tuple[dict[WorkloadKey, None] | dict[WorkloadKey, float], ...]:
        """Workloads that are due, each for a reason of its own."""
        return (self._urgent, self._progressed, self._surrounded, self._later)

    def _take_in(self, plan: Plan, done: frozenset[WorkloadKey], costs: Mapping[WorkloadKey, float]) -> None:
        """Remember who needs something, and what that plan cost."""
        needed = {entry.demand.workload for entry in plan.demands}
        self._active = (self._active - done) | needed
        self._expecting -= done
        self._expecting |= {entry.demand.workload for entry in plan.demands if entry.new_nodes}
        self._costs.update(costs)
        self._costs = {key: seconds for key, seconds in self._costs.items() if key in self._active}

    def _all_known(self) -> frozenset[WorkloadKey]:
        return frozenset(self._active | self._expecting | self._begun.keys()).union(*self._queues)

    def _follow(self, workloads: Collection[WorkloadKey], now: float) -> None:
        """Queue workloads that went on."""
        for key in sorted(workloads):
            self._progressed.setdefault(key, now)

    def _impatience(self, key: WorkloadKey, now: float) -> tuple[float, float]:
        """Who waits longest for what it costs comes first: all get about the same time, and cheap plans come often."""
        waited = now - self._progressed[key]
        return (-waited / max(CHEAP_SECONDS, self._costs.get(key, 0.0)), -waited)

    def _others(self, clock: float, now: float) -> tuple[WorkloadKey, ...]:
        """What nobody asked for, as far as it is time for it."""
        # By the snapshot's clock, which is the schedules'; the loop looks at it every half minute at least.
        found = dict.fromkeys(sorted(key for key, at in self._later.items() if at <= clock))
        if now >= self._progress_at:
            found.update(dict.fromkeys(sorted(self._progressed, key=lambda key: self._impatience(key, now))))
        if now >= self._surroundings_at:
            if self._surroundings and not self._surrounded:
                self._surroundings, self._surrounded = (
                    False,
                    dict.fromkeys(sorted(self._active - self._progressed.keys())),
                )
            found.update(self._surrounded)
        return tuple(found)

    def _rest(self, took: float, ended: float, *, counts: bool, followed: bool, surrounded: bool) -> None:
        """Set when the next ones are planned that nobody asked for, after these took so long.

        `counts`: nobody asked for these either.
        """
        earned = max(0.0, ended - self._credited_at) * LASTING_SHARE
        self._credit, self._credited_at = min(CREDIT_SECONDS, self._credit + earned), ended
        if counts:
            self._credit -= took
        if followed:
            lasting = -self._credit / LASTING_SHARE
            self._progress_at = ended + max(PROGRESS_GAP_SECONDS, took * (1 / PROGRESS_SHARE - 1), lasting)
        if surrounded:
            self._surroundings_at = ended + max(SURROUNDINGS_GAP_SECONDS, took * (1 / SURROUNDINGS_SHARE - 1))

    def _note(self, keys: Collection[WorkloadKey], snapshot: ClusterSnapshot) -> None:
        """Remember what the owners of these workloads want, and queue those who want something else than before."""
        for key in sorted(keys):
            workload = snapshot.workloads.get(key)
            intention = _intention(workload) if workload is not None else None
            if intention != self._intentions.get(key):
                self._urgent.setdefault(key)
            if intention is None:
                self._intentions.pop(key, None)
            else:
                self._intentions[key] = intention


def _joins(node: Node | None, now: float) -> bool:
    """Whether a node came just now: it may be one that pods are waiting for."""
    return node is not None and node.created_at > now - JOINING_SECONDS


def _same_pods(before: Workload | None, now: Workload | None) -> bool:
    """Whether a workload is the same, with the same template and wishes; how many pods it has may have changed."""
    if before is now:
        return True
    if before is None or now is None:
        return False
    same = before.uid == now.uid and (before.deleted_at is None) is (now.deleted_at is None)
    return same and before.template == now.template and _wishes(before) == _wishes(now)


def _intention(workload: Workload) -> _Intention:
    """What only a change of spec or of our annotations changes; revision annotations are the controller's own."""
    return (workload.uid, workload.generation, workload.replicas, workload.deleted_at is not None, _wishes(workload))


def _wishes(workload: Workload) -> tuple[tuple[str, str], ...]:
    """What its annotations ask of us."""
    return tuple(sorted(item for item in workload.annotations.items() if item[0].startswith("prewarm.dev/")))
