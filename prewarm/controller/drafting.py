"""Makes the plans that are due, the quickest first, and has what each says written while the next one is made."""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

import structlog

from prewarm.cluster.writer import WriteOutcome, WriteResult
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
YIELD_SECONDS = 1.0
"""A plan that takes long waits for the first pulls of quicker ones, but no longer: it would keep the processor from the
answers that those follow from, and from whoever gives them where that is the same machine."""
SEED = 0

log = structlog.stdlib.get_logger(__name__)


class Drafting:
    """What is planned, what of it is being written, and who waits for the pulls that follow.

    Attributes:
        hurried: whether an ImageCache that a rollout waits for was written; whoever looks at the pulls may clear it.
        warmth: memory of the plans' view of nodes.
        wakes_at: steady time at which plans are made that wait for others' first pulls; None if there are none.
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
        self._memory = DeliveryMemory()
        self.warmth = WarmthMemory()
        self._seen_at: dict[WorkloadKey, float] = {}
        """Of changed intentions, when they were seen."""
        self._reactions: dict[str, float] = {}
        """The same of those that are planned, until their first pull is ordered."""
        self._seconds = math.inf
        """Of the last plan of everything; the first one of a large cluster takes as long as nobody knows."""

    async def run(self) -> None:
        """Write until cancelled."""
        await self._courier.run()

    @property
    def undelivered(self) -> frozenset[WorkloadKey]:
        """Workloads whose ImageCaches do not say yet what their plans do: nothing follows from their being warm."""
        return self._courier.undelivered

    async def plan(
        self,
        due: Due,
        snapshot: ClusterSnapshot,
        history: History,
        seen_at: float,
        obstacle: SteerState | None,
        *,
        ordering: bool = False,
    ) -> Plan:
        """Plan everything, or as much of what is due as there is time for.

        Args:
            due: what to plan.
            snapshot: the cluster now.
            history: what was learnt.
            seen_at: steady time at which the first of the changes was seen.
            obstacle: why no pods can be steered; None if they can.
            ordering: whether pods that rollouts wait for are being created.
        """
        self.wakes_at = None
        for key in due.urgent:
            self._seen_at.setdefault(key, seen_at)
        started, taken = self._clocks.steady(), self._clocks.processor()
        planner = Planner(snapshot, history, seed=SEED, memory=self.warmth, unsteerable=obstacle)
        costs: dict[WorkloadKey, float] = {}
        if due.everything:
            made = await self._everything(planner, snapshot)
        else:
            made = await self._some(planner, due, snapshot, costs, ordering=ordering)
        ended = self._clocks.steady()
        # Its share is one of the processor: on a busy machine, waiting for it must not make the next plan wait, too.
        spent = min(ended - started, self._clocks.processor() - taken)
        self._pace.planned(due, made, ended - spent, ended, costs)
        return made

    async def _everything(self, planner: Planner, snapshot: ClusterSnapshot) -> Plan:
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
        *,
        ordering: bool,
    ) -> Plan:
        """One workload after the other, for as long as this look may take; notes in `costs` how long each takes."""
        until = self._clocks.steady() + due.seconds
        parts: list[Plan] = []
        for key in self._in_order(planner, due):
            started = self._clocks.steady()
            if self._yields(key, planner, due, started, ordering=ordering):
                continue
            part = planner.plan((key,))
            parts.append(part)
            costs[key] = self._clocks.steady() - started
            self._deliver(part, snapshot, costs[key])
            # What was said is on its way before the next is thought of.
            await sent()
            if self._clocks.steady() >= until:
                break
        return _together(parts)

    def _yields(self, key: WorkloadKey, planner: Planner, due: Due, now: float, *, ordering: bool) -> bool:
        """Whether a plan waits for the first pulls that others' plans have led to."""
        waits_until = self._seen_at.get(key, now) + YIELD_SECONDS
        waited_for = ordering or self.hurried or any(self.is_waited_for(str(one)) for one in self._courier.undelivered)
        if not due.urgent or not waited_for or now >= waits_until or planner.is_quick(key):
            return False
        self.wakes_at = waits_until if self.wakes_at is None else min(self.wakes_at, waits_until)
        return True

    def _in_order(self, planner: Planner, due: Due) -> Sequence[WorkloadKey]:
        """What was asked for before what goes on; of many, the quickest, unless others have waited for long."""
        overdue = self._clocks.steady() - PATIENCE_SECONDS
        first = [key for key in due.urgent if self._seen_at[key] <= overdue]
        return [*first, *planner.quickest_first(due.urgent[len(first) :])] or due.others

    def _deliver(self, made: Plan, snapshot: ClusterSnapshot, seconds: float) -> None:
        self._metrics.planning.observe(seconds)
        log.debug("plan made", seconds=round(seconds, 4), workloads=-1 if made.only is None else len(made.only))
        about = snapshot.workloads.keys() if made.only is None else made.only
        needed = {entry.demand.workload for entry in made.demands}
        for key in about:
            # Whatever is pulled from now on follows from this plan.
            self._reactions.pop(str(key), None)
            seen_at = self._seen_at.pop(key, None)
            if seen_at is not None and key in needed:
                self._reactions[str(key)] = seen_at
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
    """Plans for one workload each, on one snapshot, as one."""
    ordered = sorted(parts, key=lambda part: part.only or ())
    return Plan(
        tuple(entry for part in ordered for entry in part.demands),
        tuple(skip for part in ordered for skip in part.skips),
        tuple(problem for part in ordered for problem in part.problems),
        tuple(key for part in ordered for key in part.only or ()),
        tuple(later for part in ordered for later in part.later),
    )
