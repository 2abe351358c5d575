"""What one instance does while it holds the lease: plan, deliver, pull, account, remember."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from prewarm.accounting import ByteVerdict, WasteMemory, account, waste
from prewarm.api.names import ANNOTATION_GATED
from prewarm.cluster.changes import Changes
from prewarm.cluster.store import Store
from prewarm.cluster.writer import WriteResult
from prewarm.controller.announcing import Announcer
from prewarm.controller.clocks import Clocks
from prewarm.controller.drafting import Drafting
from prewarm.controller.execution import Execution, sent
from prewarm.controller.forbearance import Forbearance
from prewarm.controller.gatekeeper import Gatekeeper
from prewarm.controller.looking import Looks
from prewarm.controller.metrics import Metrics
from prewarm.controller.ordering import Ordering
from prewarm.controller.pacing import Due, Pace
from prewarm.controller.persistence import Memory, Persistence
from prewarm.controller.purge_keeping import PurgeKeeping
from prewarm.controller.reporting import Reporter
from prewarm.controller.scribe import Scribe
from prewarm.controller.settings import Settings
from prewarm.controller.steersman import Steersman
from prewarm.demand import linked
from prewarm.history import learn
from prewarm.history.learning import SCAN_INTERVAL
from prewarm.model.images import PullPolicy
from prewarm.model.intents import Create
from prewarm.model.outcomes import ContainerStart
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState
from prewarm.model.workloads import KubeletEvent
from prewarm.presence import warmth
from prewarm.puller import PullerMemory, PullerSettings, PurgeMemory, PurgeSettings

WASTE_SECONDS = 2.0
"""How often bytes are judged: nobody waits for it, and it reads every node's record."""
REFRESH_SECONDS = 300.0
"""How often measurements alone are stored, while no plan and no judgement changes."""
PULL_GAP_SECONDS = 0.25
"""Between two looks at the pulls for no other reason than that pods and nodes come and go, as they always do."""
BUSY_GAP_SECONDS = 0.05
"""The same while pulls are under way: a place that becomes free is taken soon."""
LEARN_SECONDS = 60.0
"""How long after the last pull sizes are still to be learnt: node status shows an image up to 40 s late."""
PULL_REST = 3
"""Looks at the pulls begin at least so many times apart as the last one took: a thousand pods that change one by one
would otherwise have each of them looked at a thousand times."""
FOREMOST = 1
"""Of the pods that each rollout waits for, those that are created before the rest: a server serves all that it gets at
once side by side, and the first pull would begin hardly before the last. Four at once take thrice as long as one."""
TELL_SECONDS = 1.0
"""No longer do further pulls, and what only tells, wait for rollouts whose first pulls are not ordered yet."""

log = structlog.stdlib.get_logger(__name__)


class Work(Struct, frozen=True):
    """What a cycle starts from."""

    changes: Changes
    events: tuple[KubeletEvent, ...] = ()
    seen_at: float = 0.0
    """Steady time at which the first of the changes was seen."""


async def _not_steering() -> SteerState | None:
    return SteerState.SWITCHED_OFF


def _not_annotating(_name: str, _value: str) -> None:
    return


class Services(Struct, frozen=True):
    """What a term works with."""

    store: Store
    execution: Execution
    persistence: Persistence
    metrics: Metrics
    clocks: Clocks
    unsteerable: Callable[[], Awaitable[SteerState | None]] = _not_steering
    """Asked at the start of a term: why no pods can be steered; None if they can."""
    annotate_lease: Callable[[str, str], None] = _not_annotating
    """Has our Lease carry an annotation, given by name and value."""


class Term:
    """State and steps of one leadership; nothing of it outlives the lease but what persistence keeps."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        memory: Memory,
        unsteerable: SteerState | None = SteerState.SWITCHED_OFF,
        *,
        nudge: Callable[[], None] = lambda: None,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with what is known.

        Args:
            settings: the controller's.
            services: what it works with.
            memory: what was stored.
            unsteerable: why no pods can be steered; None if they can.
            nudge: called when there is a reason for a cycle that no change of the store tells.
            hurry: the same, if nothing is to be waited for.
        """
        self._settings = settings
        self._nudge = nudge
        self._hurry = hurry
        self._services = services
        self._history = memory.history
        self._ledger = memory.ledger
        self._pace = Pace(settings.resync_seconds)
        self._puller_memory = PullerMemory(purge=PurgeMemory(memory.purges))
        self._looks = Looks(puller_settings(settings), self._puller_memory, services.clocks)
        self._purges = PurgeKeeping(services.persistence, memory.purges, services.clocks.steady)
        self._drafting = Drafting(self._pace, services.execution, services.metrics, services.clocks, hurry)
        self._reporter = Reporter(services.metrics)
        self._announcer = Announcer()
        self._gatekeeper = Gatekeeper()
        self._steersman = Steersman(settings.namespace, unsteerable)
        self._announcer.known([(entry.workload, entry.revision) for entry in memory.history.plans_in_force])
        self._uncounted: list[ContainerStart] = []
        self._unweighed: list[ByteVerdict] = []
        self._waste_memory = WasteMemory()
        self._wasted_at = 0.0
        self._resting = Forbearance(TELL_SECONDS)
        self._pulled_at = 0.0
        self._pulling = False
        self._pulls_concerned = False
        self._learn_until = 0.0
        self._surroundings_changed = False
        self._looked = False
        self._scribe = Scribe(services.execution)
        self._ordering = Ordering(services.execution, self._answered)
        self._to_store = asyncio.Event()
        self._dirty = False
        self._persisted_at = 0.0
        self._puller_wakes_at: float | None = None

    def plan_everything(self) -> None:
        """Plan and account for all workloads in the next cycle: this one did not come to its end."""
        self._pace.plan_everything()
        self._looked = False

    async def cycle(self, work: Work) -> float:
        """One round; returns the steady time of the next one if nothing changes before."""
        # What plans remember of the cluster is used all along.
        await self._drafting.rest()
        try:
            await self._round(work)
        finally:
            self._drafting.go_on(ordering=self._ordering.busy)
        return self._wake_at()

    async def _round(self, work: Work) -> None:
        steady, wall = self._services.clocks.steady, self._services.clocks.wall
        snapshot = self._services.store.snapshot(wall())
        due = self._drafting.due(_with_linked(work.changes, snapshot), snapshot)
        self._puller_memory.hearsay.heard(work.events)
        self._rest_from_telling()
        started = steady()
        self._concern_pulls(work.changes, snapshot)
        if self._drafting.hurried:
            # What is planned already goes before what is not.
            await self._pull()
        pulled = steady()
        made = await self._plan(due, work.seen_at) if due or self._drafting.finished else None
        planned = steady()
        if self._pull_is_due():
            await self._pull()
        self._rest_from_telling()
        self._steer_and_open(self._services.store.snapshot(wall()), made)
        self._learn_unplanned(work.changes, snapshot)
        self._account(work)
        if due.urgent:
            log.debug(
                "cycle",
                waited=round(started - work.seen_at, 4),
                pull=round(pulled - started, 4),
                plan=round(planned - pulled, 4),
                rest=round(steady() - planned, 4),
            )

    def _wake_at(self) -> float:
        steady, wall = self._services.clocks.steady, self._services.clocks.wall
        wake_at = self._pace.wake_at()
        if self._drafting.wakes_at is not None:
            wake_at = min(wake_at, self._drafting.wakes_at)
        if self._surroundings_changed:
            wake_at = min(wake_at, self._pulled_at + self._pull_gap)
        if self._pulls_concerned:
            wake_at = min(wake_at, self._pulled_at + PULL_REST * self._looks.seconds)
        if self._history.scanned_at < self._learn_until:
            wake_at = min(wake_at, steady() + max(1.0, self._history.scanned_at + SCAN_INTERVAL - wall()))
        if self._puller_wakes_at is not None:
            wake_at = min(wake_at, steady() + max(0.05, self._puller_wakes_at - wall()))
        for at in (self._gatekeeper.wakes_at, self._steersman.wakes_at):
            if at is not None:
                wake_at = min(wake_at, steady() + max(0.05, at - wall()))
        if self._ledger.open:
            wake_at = min(wake_at, steady() + 1.0)
        return wake_at

    async def _plan(self, due: Due, seen_at: float) -> Plan:
        """Make plans; what is learnt and told of them waits for nothing, and keeps no pull waiting."""
        snapshot = self._services.store.snapshot(self._services.clocks.wall())
        if due.everything:
            # The first plan of all may be that of a rollout which has begun already: it asks for sizes, too.
            self._learn(snapshot, None)
        made = await self._drafting.plan(due, snapshot, self._history, seen_at, self._steersman.obstacle)
        self._reporter.planned(made)
        self._scribe.put(self._announcer.about(made, snapshot))
        self._learn(snapshot, made)
        return made

    def _rest_from_telling(self) -> None:
        """Have what only tells, and further pulls, wait while rollouts wait for their first pulls, but not for long."""
        awaited = self._pace.urgent or self._drafting.awaits_first_pull
        resting = self._resting.waits(awaited, self._services.clocks.steady())
        self._scribe.rest(resting)
        self._ordering.rest(resting)

    def _steer_and_open(self, snapshot: ClusterSnapshot, made: Plan | None) -> None:
        """Label what has become warm, and open the gates behind which nobody waits for that any more."""
        steersman, metrics = self._steersman, self._services.metrics
        self._scribe.put(steersman.look(snapshot, made, warmth(snapshot, self._drafting.warmth)))
        metrics.steered_workloads.set(steersman.workloads)
        metrics.steered_nodes.set(steersman.nodes)
        unready = {*steersman.unready(snapshot), *self._drafting.undelivered}
        self._scribe.put(self._gatekeeper.look(snapshot, made, unready))
        gated = self._gatekeeper.gated(snapshot, made)
        if gated is not None:
            self._services.annotate_lease(ANNOTATION_GATED, gated)

    def _concern_pulls(self, changes: Changes, snapshot: ClusterSnapshot) -> None:
        """Note what concerns the pulls, and what may."""
        self._pulls_concerned |= bool(changes.image_caches)
        self._pulls_concerned |= (
            self._puller_wakes_at is not None and self._services.clocks.wall() >= self._puller_wakes_at
        )
        if snapshot.image_caches or snapshot.puller_pods or snapshot.node_images:
            self._surroundings_changed |= bool(changes.nodes or changes.used_nodes or changes.quotas)

    def _pull_is_due(self) -> bool:
        """Whether to look after the pulls: soon for what concerns them, now and then for what may."""
        now = self._services.clocks.steady()
        if self._pulled_at == 0.0:
            return True
        if self._pulls_concerned and now >= self._pulled_at + PULL_REST * self._looks.seconds:
            return True
        return self._surroundings_changed and now >= self._pulled_at + self._pull_gap

    @property
    def _pull_gap(self) -> float:
        """Seconds between two looks at the pulls where only the surroundings changed."""
        return max(BUSY_GAP_SECONDS, PULL_REST * self._looks.seconds) if self._pulling else PULL_GAP_SECONDS

    async def _pull(self) -> None:
        services = self._services
        self._pulled_at = services.clocks.steady()
        self._surroundings_changed = self._pulls_concerned = self._drafting.hurried = False
        snapshot = services.store.snapshot(services.clocks.wall())
        decision = await self._looks.look(snapshot, self._history, self._drafting.first_pulls)
        self._reporter.pulling(decision, snapshot)
        self._puller_wakes_at = decision.wake_at
        self._pulling = decision.in_flight > 0
        if self._pulling:
            self._learn_until = snapshot.taken_at + LEARN_SECONDS
        await self._purges.keep(decision.remembered)
        creates = self._admitted(intent for intent in decision.intents if isinstance(intent, Create))
        removals = self._order(creates, snapshot)
        if creates:
            await sent()
        self._scribe.put(intent for intent in decision.intents if not isinstance(intent, Create))
        if removals:
            for result in await services.execution.execute(removals):
                self._looks.heed(result, snapshot.taken_at)

    def _admitted(self, creates: Iterable[Create]) -> tuple[Create, ...]:
        """Those that need not wait for what is to be stored first; the others are ordered again."""
        admitted = []
        for intent in creates:
            if self._purges.holds_back(_owner(intent)[1]):
                self._puller_memory.unsent(intent.namespace, intent.name)
            else:
                admitted.append(intent)
        again_in = self._purges.again_in
        if again_in is not None:
            again_at = self._services.clocks.wall() + again_in
            self._puller_wakes_at = min(again_at, self._puller_wakes_at or again_at)
        return tuple(admitted)

    def _order(self, creates: Iterable[Create], snapshot: ClusterSnapshot) -> tuple[Create, ...]:
        """Have pods that pull created, the first ones that rollouts wait for before others.

        Gives back those that remove images, which are few.
        """
        removals: list[Create] = []
        awaited: Counter[str] = Counter()
        for intent in creates:
            if not self._puller_memory.sent(intent.namespace, intent.name):
                removals.append(intent)
                continue
            cache = snapshot.image_caches.get((intent.namespace, _owner(intent)[0]))
            workload = "" if cache is None else cache.workload
            if self._drafting.is_waited_for(workload) or workload in awaited:
                self._drafting.react(workload)
                awaited[workload] += 1
            self._ordering.put((intent,), snapshot.taken_at, foremost=0 < awaited[workload] <= FOREMOST)
        return tuple(removals)

    def _answered(self, result: WriteResult, ordered_at: float) -> None:
        """Heed what became of a pod that was created while looks went on."""
        self._looks.heed(result, ordered_at)
        if not result.done:
            self._pulls_concerned = True
            self._nudge()
        if self._drafting.wakes_at is not None and not self._ordering.busy:
            self._hurry()

    def _account(self, work: Work) -> None:
        clocks = self._services.clocks
        snapshot = self._services.store.snapshot(clocks.wall())
        before = self._ledger
        only = work.changes.workloads if self._looked else None
        self._looked = True
        self._ledger, starts = account(before, snapshot, work.events, self._history, only=only)
        if clocks.steady() >= self._wasted_at + WASTE_SECONDS:
            self._wasted_at = clocks.steady()
            self._ledger, verdicts = waste(self._ledger, snapshot, self._history, self._waste_memory)
            self._reporter.weighed(verdicts)
            self._unweighed.extend(verdicts)
        if starts:
            self._reporter.judged(starts)
            self._uncounted.extend(starts)
            self._learn(snapshot, None, starts)
        followed = self._ledger.open.keys() != before.open.keys() or self._ledger.covered_since != before.covered_since
        if self._uncounted or self._unweighed or followed:
            self._changed()

    def _learn_unplanned(self, changes: Changes, snapshot: ClusterSnapshot) -> None:
        """Learn sizes and rates between plans, too: small images share a pod, and the next plan asks for them."""
        if changes.nodes:
            self._learn_until = max(self._learn_until, snapshot.taken_at)
        if self._history.scanned_at < self._learn_until and not (
            0 <= snapshot.taken_at - self._history.scanned_at < SCAN_INTERVAL
        ):
            self._learn(snapshot, None)

    def _learn(self, snapshot: ClusterSnapshot, made: Plan | None, starts: Sequence[ContainerStart] = ()) -> None:
        before = self._history
        self._history = learn(before, snapshot, made, starts)
        if self._history is not before:
            self._changed(judged=bool(starts) or self._history.plans_in_force != before.plans_in_force)

    async def in_background(self) -> None:
        """Write what no decision waits for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._drafting.run(), name="deliver")
            group.create_task(self._scribe.run(), name="scribe")
            group.create_task(self._ordering.run(), name="order pods")
            group.create_task(self._remember(), name="remember")

    async def _remember(self) -> None:
        while True:
            await self._to_store.wait()
            gap = self._settings.persist_seconds if self._dirty else REFRESH_SECONDS
            left = self._persisted_at + gap - self._services.clocks.steady()
            if left <= 0:
                await self.persist()
            else:
                await asyncio.sleep(min(left, self._settings.persist_seconds))

    async def persist(self) -> None:
        """Store what was learnt, then count what was judged.

        Counting comes second: a start that was counted and not stored would be counted again after a crash.
        """
        if not self._to_store.is_set():
            return
        self._persisted_at = self._services.clocks.steady()
        memory = Memory(self._history, self._ledger)
        self._dirty = False
        self._to_store.clear()
        starts, self._uncounted = self._uncounted, []
        verdicts, self._unweighed = self._unweighed, []
        try:
            stored = await self._services.persistence.store(memory, self._services.clocks.wall())
        except asyncio.CancelledError:
            # The last words before the end say it again.
            self._uncounted, self._unweighed = starts + self._uncounted, verdicts + self._unweighed
            self._changed()
            raise
        if not stored:
            self._changed()
        self._services.metrics.count_starts(starts)
        self._services.metrics.count_bytes(verdicts)

    def _changed(self, *, judged: bool = True) -> None:
        """Note that there is something to store: plans or judgements soon, measurements alone when convenient."""
        self._dirty = self._dirty or judged
        self._to_store.set()


def _with_linked(changes: Changes, snapshot: ClusterSnapshot) -> Changes:
    """With the workloads whose plan follows from what changed though nothing of theirs did."""
    others = linked(snapshot, changes.workloads, changes.intended, changes.image_policies)
    return replace(changes, workloads=changes.workloads | others) if others else changes


def puller_settings(settings: Settings) -> PullerSettings:
    """The puller's part of the settings."""
    return PullerSettings(
        cluster_pulls=settings.cluster_pulls,
        node_pulls=settings.node_pulls,
        registry_pulls=settings.registry_pulls,
        helper_image=settings.helper_image,
        priority_class=settings.puller_priority_class,
        service_account=settings.puller_service_account,
        puller_form=settings.puller_form,
        pull_policy=PullPolicy(settings.pull_policy.value),
        attempt_timeout_seconds=settings.attempt_timeout_seconds,
        refresh_seconds=settings.refresh_seconds,
        hold_limit=settings.hold_limit,
        pod_retention=settings.pod_retention,
        pod_retention_seconds=settings.pod_retention_seconds,
        purge=PurgeSettings(
            enabled=settings.purge,
            namespace=settings.namespace,
            image=settings.purge_image,
            pull_secrets=settings.purge_pull_secrets,
            priority_class=settings.puller_priority_class,
            socket=settings.purge_socket,
            host_network=settings.purge_host_network,
            nodes_at_once=settings.purge_nodes,
        ),
    )


def _owner(intent: Create) -> tuple[str, str]:
    """Name and uid of the ImageCache that owns a puller pod to be created; "" if it has none."""
    metadata = intent.manifest.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, Mapping) else None
    owner = owners[0] if isinstance(owners, Sequence) and owners else None
    name, uid = (owner.get("name"), owner.get("uid")) if isinstance(owner, Mapping) else ("", "")
    return (name if isinstance(name, str) else "", uid if isinstance(uid, str) else "")
