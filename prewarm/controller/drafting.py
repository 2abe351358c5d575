"""Makes the plans that are due, the quickest first, and has what each says written while the next one is made.

Long ones are made in a thread, one at a time, between the event loop's own work.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

import structlog

from prewarm.cluster.changes import Changes
from prewarm.cluster.writer import WriteOutcome, WriteResult
from prewarm.controller.aside import Aside, Finished
from prewarm.controller.clocks import Clocks
from prewarm.controller.courier import Courier
from prewarm.controller.execution import Execution, sent
from prewarm.controller.metrics import Metrics
from prewarm.controller.pacing import Due, Pace
from prewarm.delivery import DeliveryMemory, deliver
from prewarm.delivery.planned_cache import cache_key
from prewarm.history import History
from prewarm.model.intents import Intent
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState
from prewarm.model.workloads import WorkloadKey
from prewarm.planning import Planner
from prewarm.presence import WarmthMemory

INLINE_SECONDS = 0.5
"""After a plan for everything that took longer, the next one leaves the event loop to probes, lease and reflectors."""
PATIENCE_SECONDS = 2.0
"""A changed intention that has waited for so long is planned before quicker ones."""
LONG_SECONDS = 0.02
"""Of workloads that go on, those are planned in the thread whose last plan took longer, or whose first one may."""
FIRST_PULL_SECONDS = 2.0
"""For so long after a change was seen, a place is kept for its first pull."""
YIELD_SECONDS = 1.0
"""A long plan rests while first pulls of quicker ones are awaited, but no longer than so many seconds from when its
change was seen: it would keep the processor from the answers that those follow from, and from whoever gives them where
that is the same machine."""
TURN_SECONDS = 0.05
"""One that has waited for longer than PATIENCE_SECONDS goes on for so long between two looks, however many follow."""
SEED = 0

log = structlog.stdlib.get_logger(__name__)


class Drafting:
    """What is planned, what of it is being written, and who waits for the pulls that follow.

    Attributes:
        hurried: whether an ImageCache that a rollout waits for was written; whoever looks at the pulls may clear it.
        warmth: memory of the plans' view of nodes.
        wakes_at: steady time at which a long plan goes on that rests for others' first pulls; None if none does.
    """

    def __init__(
        self, pace: Pace, execution: Execution, metrics: Metrics, clocks: Clocks, hurry: Callable[[], None]
    ) -> None:
        """`hurry` is called when there is something new to pull for a rollout, or a plan is to be made again."""
        self.hurried = False
        self.wakes_at: float | None = None
        self._pace = pace
        self._metrics = metrics
        self._clocks = clocks
        self._hurry = hurry
        self._courier = Courier(execution, self._answered)
        self._aside = Aside(hurry)
        self._heeded: Finished | None = None
        """What was made in the thread, and is to be told by the next `plan`."""
        self._yields_until = 0.0
        """Until then the plan in the thread rests for others' first pulls."""
        self._patient_until = 0.0
        """From then on it gets turns."""
        self._goes_on_since = 0.0
        self._memory = DeliveryMemory()
        self.warmth = WarmthMemory()
        self._seen_at: dict[WorkloadKey, float] = {}
        """Of changed intentions, when they were seen."""
        self._reactions: dict[str, float] = {}
        """The same of those that are planned, until their first pull is ordered."""
        self._pulling: set[str] = set()
        """Of those, such whose plan asks for a pull."""
        self._seconds = math.inf
        """Of the last plan of everything; the first one of a large cluster takes as long as nobody knows."""

    async def run(self) -> None:
        """Write, and make long plans, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._courier.run(), name="write what plans say")
            group.create_task(self._aside.run(), name="make long plans")

    async def rest(self) -> None:
        """Return once no plan is being made in the thread; from then on, what plans remember may be used."""
        now = self._clocks.steady()
        turn = self._goes_on_since + TURN_SECONDS - now
        if turn > 0 and now >= self._patient_until and self._planning:
            await self._aside.wait(turn)
        await self._aside.rest()

    def go_on(self, *, ordering: bool) -> None:
        """Let the thread go on, or rest until first pulls are ordered.

        Args:
            ordering: whether pods that rollouts wait for are being created.
        """
        awaited = ordering or self.hurried or any(self.is_waited_for(str(one)) for one in self._courier.undelivered)
        now = self._clocks.steady()
        if self._planning and awaited and now < self._yields_until:
            self.wakes_at = self._yields_until
        else:
            self.wakes_at = None
            self._goes_on_since = now
            self._aside.go_on()

    @property
    def _planning(self) -> bool:
        """Whether there is a long plan that is not finished."""
        return self._aside.workload is not None and not self._aside.finished

    @property
    def finished(self) -> bool:
        """Whether there is a long plan to be told, which `plan` does."""
        return self._heeded is not None or self._aside.finished

    @property
    def undelivered(self) -> frozenset[WorkloadKey]:
        """Workloads whose ImageCaches do not say yet what their plans do: nothing follows from their being warm."""
        return self._courier.undelivered

    def due(self, changes: Changes, snapshot: ClusterSnapshot) -> Due:
        """What to plan now that these changes came, and a long plan may have been finished; `rest` comes before.

        A long plan of which nobody wants anything any more is given up.
        """
        now = self._clocks.steady()
        # What is left from a cycle that failed is planned again, with everything.
        self._heeded = None
        key = self._aside.workload
        if key is not None and self._pace.is_void(key, snapshot.workloads.get(key)):
            self._aside.give_up()
            self._pace.given_up(key)
        elif key is not None:
            self._heeded = self._aside.take()
            if self._heeded is not None:
                # What it cost tells when the next one may follow.
                self._pace.finished(key, self._heeded.plan, self._heeded.seconds, now)
        return self._pace.due(changes, snapshot, now)

    async def plan(
        self, due: Due, snapshot: ClusterSnapshot, history: History, seen_at: float, obstacle: SteerState | None
    ) -> Plan:
        """Plan everything, or as much of what is due as there is time for, and give what has been finished since.

        Long plans are begun here; `due` comes before, `go_on` after.

        Args:
            due: what to plan.
            snapshot: the cluster now.
            history: what was learnt.
            seen_at: steady time at which the first of the changes was seen.
            obstacle: why no pods can be steered; None if they can.
        """
        finished, self._heeded = self._heeded, None
        if finished is not None:
            self._deliver(finished.plan, snapshot, finished.seconds)
        for key in due.urgent:
            self._seen_at.setdefault(key, seen_at)
        started, taken = self._clocks.steady(), self._clocks.processor()
        planner = Planner(snapshot, history, seed=SEED, memory=self.warmth, unsteerable=obstacle)
        costs: dict[WorkloadKey, float] = {}
        waiting: list[WorkloadKey] = []
        if due.everything:
            made = await self._everything(planner, snapshot)
        else:
            made = await self._some(planner, due, snapshot, costs, waiting)
        ended = self._clocks.steady()
        # Its share is one of the processor: on a busy machine, waiting for it must not make the next plan wait, too.
        spent = min(ended - started, self._clocks.processor() - taken)
        self._pace.planned(due, made, ended - spent, ended, costs, waiting)
        if due.everything or finished is None or finished.workload in (made.only or ()):
            return made
        return _together([finished.plan, made])

    async def _everything(self, planner: Planner, snapshot: ClusterSnapshot) -> Plan:
        # What is being planned alone is among it.
        self._aside.give_up()
        started = self._clocks.steady()
        # In a thread it takes several times as long while a rollout's events are decoded beside it.
        made = await asyncio.to_thread(planner.plan) if self._seconds > INLINE_SECONDS else planner.plan()
        self._seconds = self._clocks.steady() - started
        self._deliver(made, snapshot, self._seconds)
        return made

    async def _some(
        self,
        planner: Planner,
        due: Due,
        snapshot: ClusterSnapshot,
        costs: dict[WorkloadKey, float],
        waiting: list[WorkloadKey],
    ) -> Plan:
        """One workload after the other, for as long as this look may take.

        Notes in `costs` how long each takes, and in `waiting` the long ones for which there is no place yet.
        """
        until = self._clocks.steady() + due.seconds
        parts: list[Plan] = []
        for key in self._in_order(planner, due):
            if parts and key not in self._seen_at and self._clocks.steady() >= until:
                # Even to find out how long its plan takes is for the next look.
                continue
            if self._is_long(key, planner):
                if self._aside.workload is None:
                    self._begin(key, planner, snapshot)
                else:
                    waiting.append(key)
                continue
            if parts and self._clocks.steady() >= until:
                continue
            started, taken = self._clocks.steady(), self._clocks.processor()
            part = planner.plan((key,))
            parts.append(part)
            costs[key] = self._clocks.processor() - taken
            self._deliver(part, snapshot, self._clocks.steady() - started)
            # What was said is on its way before the next is thought of.
            await sent()
        return _together(parts)

    def _is_long(self, key: WorkloadKey, planner: Planner) -> bool:
        """Whether a plan is made in the thread, as is one for a workload of which a plan is being made there."""
        if key == self._aside.workload:
            return True
        if key in self._seen_at:
            return not planner.is_quick(key)
        cost = self._pace.cost(key)
        if cost is not None:
            return cost > LONG_SECONDS
        # Most that go on need nothing, as before; but what a plan for nothing took does not tell what the first will.
        is_idle = not self._pace.is_active(key) and planner.is_idle(key)
        return not (is_idle or planner.is_quick(key))

    def _begin(self, key: WorkloadKey, planner: Planner, snapshot: ClusterSnapshot) -> None:
        """Have a long plan made in the thread."""
        since = self._seen_at.get(key, self._clocks.steady())
        self._yields_until, self._patient_until = since + YIELD_SECONDS, since + PATIENCE_SECONDS
        self._aside.begin(key, partial(planner.plan, (key,)))
        self._pace.begun(key, snapshot.workloads.get(key))

    def _in_order(self, planner: Planner, due: Due) -> Sequence[WorkloadKey]:
        """What was asked for before what goes on; of many, the quickest, unless others have waited for long."""
        overdue = self._clocks.steady() - PATIENCE_SECONDS
        late = [key for key in due.urgent if self._seen_at[key] <= overdue]
        others = (key for key in due.others if key not in due.urgent)
        return [*late, *planner.quickest_first(key for key in due.urgent if key not in late), *others]

    def _deliver(self, made: Plan, snapshot: ClusterSnapshot, seconds: float) -> None:
        self._metrics.planning.observe(seconds)
        log.debug("plan made", seconds=round(seconds, 4), workloads=-1 if made.only is None else len(made.only))
        about = snapshot.workloads.keys() if made.only is None else made.only
        needed = {entry.demand.workload for entry in made.demands}
        pulling = {entry.demand.workload for entry in made.demands if any(node.missing for node in entry.nodes)}
        for key in about:
            # Whatever is pulled from now on follows from this plan. One that is made again before the first pull of the
            # last one is ordered, as pods are created meanwhile, leaves the rollout waiting for it.
            seen_at, awaited_since = self._seen_at.pop(key, None), self._reactions.pop(str(key), None)
            if seen_at is None and key in pulling and str(key) in self._pulling:
                seen_at = awaited_since
            if seen_at is not None and key in needed:
                self._reactions[str(key)] = seen_at
        self._pulling = self._reactions.keys() & (self._pulling | {str(key) for key in pulling})
        owners = {cache_key(entry.demand): entry.demand.workload for entry in made.demands}
        for intent in deliver(made, snapshot, memory=self._memory):
            owner = owners.get((intent.namespace, intent.name)) or _owner_of_stored(intent, snapshot, about)
            # One whose owner is gone is withdrawn by whichever plan comes next.
            self._courier.put((intent,), () if owner is None else (owner,))

    def _answered(self, result: WriteResult, about: frozenset[WorkloadKey]) -> None:
        """Heed what became of an ImageCache that was written while plans went on."""
        key = (result.intent.namespace, result.intent.name)
        if not result.done:
            self._memory.forget(key)
        if result.outcome is WriteOutcome.FAILED:
            self._pace.plan_again(about)
        waited_for = result.outcome is WriteOutcome.APPLIED and any(str(one) in self._reactions for one in about)
        self.hurried |= waited_for
        if waited_for or result.outcome is WriteOutcome.FAILED:
            self._hurry()

    @property
    def first_pulls(self) -> int:
        """How many rollouts may order their first pull soon: such as changed, or were planned, just now."""
        return self._recent(self._seen_at.values()) + self._recent(self._reactions.values())

    @property
    def awaits_first_pull(self) -> bool:
        """Whether a rollout changed just now whose plan asks for pulls, and the first of them is not ordered."""
        return self._recent(seen_at for workload, seen_at in self._reactions.items() if workload in self._pulling) > 0

    def _recent(self, seen_at: Iterable[float]) -> int:
        since = self._clocks.steady() - FIRST_PULL_SECONDS
        return sum(at > since for at in seen_at)

    def is_waited_for(self, workload: str) -> bool:
        """Whether a rollout of this workload waits for its first pull."""
        return workload in self._reactions

    def react(self, workload: str) -> None:
        """Measure the time from a workload's change to the order of its first pull, which is given now."""
        seen_at = self._reactions.pop(workload, None)
        if seen_at is not None:
            self._metrics.reaction.observe(self._clocks.steady() - seen_at)


def _owner_of_stored(intent: Intent, snapshot: ClusterSnapshot, among: Collection[WorkloadKey]) -> WorkloadKey | None:
    """The workload of an ImageCache that no demand asks for any more."""
    stored = snapshot.image_caches.get((intent.namespace, intent.name))
    return next((key for key in among if stored is not None and str(key) == stored.workload), None)


def _together(parts: Collection[Plan]) -> Plan:
    """Plans for some workloads each as one."""
    ordered = sorted(parts, key=lambda part: part.only or ())
    return Plan(
        tuple(entry for part in ordered for entry in part.demands),
        tuple(skip for part in ordered for skip in part.skips),
        tuple(problem for part in ordered for problem in part.problems),
        tuple(key for part in ordered for key in part.only or ()),
        tuple(later for part in ordered for later in part.later),
    )
