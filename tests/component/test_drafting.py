"""Long plans are made beside quick ones, rest for the first pulls of those, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from prewarm.cluster.changes import Changes
from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import Writer
from prewarm.controller import drafting
from prewarm.controller.clocks import Clocks
from prewarm.controller.drafting import FIRST_PULL_SECONDS, LONG_SECONDS, PATIENCE_SECONDS, YIELD_SECONDS, Drafting
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.controller.pacing import Due, Pace
from prewarm.history import History
from prewarm.model.batch import Schedule
from prewarm.model.intents import IMAGE_CACHES
from prewarm.model.plans import Plan
from prewarm.model.pods import PodTemplate
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import cluster, deployment, node, template
from tests.support.fake_api_server import FakeApiServer, Hang
from tests.support.mirroring import connected

QUICK = WorkloadKey("Deployment", "shop", "quick")
SLOW = WorkloadKey("Deployment", "shop", "slow")
SLOWER = WorkloadKey("Deployment", "shop", "slower")
NIGHTLY, MIDNIGHT = WorkloadKey("CronJob", "shop", "nightly"), 24 * 3600.0
UNCOVERED = [WorkloadKey("Deployment", "shop", f"uncovered-{number}") for number in range(40)]
TIMEOUT_SECONDS = 20.0
POOL, NODES = {"pool": "small"}, 1000
NOTHING = Changes()


def scene() -> ClusterSnapshot:
    """A paused rollout in a pool of two nodes, two on all of many, a run next midnight, and some nobody opted in."""
    nodes = [node(f"n{number}") for number in range(NODES)]
    small = [replace(found, labels={**found.labels, **POOL}) for found in nodes[:2]]
    pooled = template("registry.test/quick:v2", name="quick")
    pooled = PodTemplate(pooled.labels, replace(pooled.shape, node_selector=tuple(POOL.items())))
    other = template("registry.test/uncovered:v2", name="uncovered")
    uncovered = [deployment(other, replicas=40, key=key, paused=True) for key in UNCOVERED]
    return cluster(
        [*small, *nodes[2:]],
        workloads=[
            deployment(pooled, replicas=1, key=QUICK, paused=True),
            deployment(template("registry.test/slow:v2", name="slow"), replicas=10, key=SLOW, paused=True),
            deployment(template("registry.test/slower:v2", name="slower"), replicas=12, key=SLOWER, paused=True),
            deployment(
                template("registry.test/nightly:v1", name="nightly"),
                replicas=10,
                key=NIGHTLY,
                schedule=Schedule("0 0 * * *"),
            ),
            *(replace(found, annotations={}) for found in uncovered),
        ],
    )


class Desk:
    """A Drafting whose clock stands still unless it is set, and who is told when there is reason to hurry."""

    def __init__(self, drafting: Drafting, pace: Pace, clock: list[float], hurried: asyncio.Event) -> None:
        self.drafting = drafting
        self.hurried = hurried
        self.pace = pace
        self.made = Plan()
        self._clock = clock
        self._snapshot = scene()
        # What is there at the start is planned with everything.
        pace.planned(pace.due(Changes(), replace(self._snapshot, workloads={}), 0.0), Plan(), 0.0, 0.0)

    async def plan(
        self,
        at: float,
        *urgent: WorkloadKey,
        ordering: bool = False,
        others: tuple[WorkloadKey, ...] = (),
        seconds: float = 60.0,
    ) -> tuple[WorkloadKey, ...] | None:
        """What is planned at a time of what is due since 0, and what else has been finished by then."""
        await self._plan(at, Due(urgent=urgent, others=others, seconds=seconds), ordering=ordering)
        return self.made.only

    async def plan_everything(self, at: float, *urgent: WorkloadKey) -> None:
        """Plan all that is there, some of it for the first time."""
        await self._plan(at, Due(everything=True, urgent=urgent), ordering=False)

    async def plan_due(self, at: float, changes: Changes = NOTHING) -> Due:
        """What is due by itself once these changes came, and planned then."""
        return await self._plan(at, None, ordering=False, changes=changes)

    async def _plan(self, at: float, asked: Due | None, *, ordering: bool, changes: Changes = NOTHING) -> Due:
        self._clock[0] = at
        await self.drafting.rest()
        try:
            found = self.drafting.due(changes, self._snapshot)
            self.made = await self.drafting.plan(asked or found, self._snapshot, History(), 0.0, None)
        finally:
            self.drafting.go_on(ordering=ordering)
        return found

    def put(self, key: WorkloadKey, workload: Workload | None) -> None:
        """Have the cluster show another workload under this name, or none."""
        workloads = {found: one for found, one in self._snapshot.workloads.items() if found != key}
        if workload is not None:
            workloads[key] = workload
        self._snapshot = replace(self._snapshot, workloads=workloads)

    def turn_to(self, taken_at: float) -> None:
        """Have the cluster's clock show another time."""
        self._snapshot = replace(self._snapshot, taken_at=taken_at)

    def rests_until(self) -> float | None:
        """When a long plan goes on that rests now."""
        return self.drafting.wakes_at

    async def finished(self) -> None:
        """Return once a long plan is made, while somebody looks at the pulls whenever there is reason to hurry."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not self.drafting.finished:
                self.hurried.clear()
                self.drafting.hurried = False
                self.drafting.go_on(ordering=False)
                await self.hurried.wait()


@asynccontextmanager
async def desk(server: FakeApiServer) -> AsyncIterator[Desk]:
    async with connected(server) as client:
        store, clock, hurried = Store(), [0.0], asyncio.Event()
        metrics = Metrics(version="test")
        execution = Execution(Writer(client), store, feeds(store), metrics)
        clocks = Clocks(lambda: 1000.0, lambda: clock[0], lambda: clock[0])
        pace = Pace(3600.0)
        drafting = Drafting(pace, execution, metrics, clocks, hurried.set)
        writing = asyncio.create_task(drafting.run(), name="drafting")
        try:
            yield Desk(drafting, pace, clock, hurried)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def test_quick_plans_are_made_while_a_long_one_is() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW) == ()
        assert await found.plan(0.1, QUICK) == (QUICK,)
        await found.finished()
        assert await found.plan(0.2) == (SLOW,)


async def test_a_quick_plan_is_made_though_it_waited_for_as_long_as_a_long_one() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(PATIENCE_SECONDS, SLOW, QUICK, SLOWER) == (QUICK,)
        await found.finished()
        assert await found.plan(PATIENCE_SECONDS, SLOWER) == (SLOW,)


async def test_a_long_plan_rests_until_the_first_pull_of_a_quick_one_is_ordered() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        hang = Hang()
        server.fail_next("patch", IMAGE_CACHES, hang)
        assert await found.plan(0.0, QUICK, SLOW) == (QUICK,)
        assert found.rests_until() == YIELD_SECONDS
        hang.released.set()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await found.hurried.wait()
        assert await found.plan(0.1) == ()
        assert found.rests_until() == YIELD_SECONDS
        # Whoever looks at the pulls orders one, and it is being created.
        found.drafting.hurried = False
        assert await found.plan(0.2, ordering=True) == ()
        assert found.rests_until() == YIELD_SECONDS
        assert not found.drafting.finished
        assert await found.plan(0.3) == ()
        assert found.rests_until() is None
        await found.finished()
        assert await found.plan(0.4) == (SLOW,)


async def test_a_place_is_kept_for_the_first_pull_of_a_rollout_but_not_for_ever() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, QUICK) == (QUICK,)
        assert found.drafting.first_pulls == 1
        assert found.drafting.awaits_first_pull
        assert await found.plan(FIRST_PULL_SECONDS) == ()
        assert found.drafting.first_pulls == 0
        assert not found.drafting.awaits_first_pull


async def test_a_first_pull_is_awaited_until_it_is_ordered() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, QUICK) == (QUICK,)
        found.drafting.react(str(QUICK))
        assert not found.drafting.awaits_first_pull


async def test_a_first_pull_is_awaited_though_the_rollout_is_planned_again_before_it_is_ordered() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, QUICK) == (QUICK,)
        assert await found.plan(0.1, others=(QUICK,)) == (QUICK,)
        assert found.drafting.awaits_first_pull
        assert found.drafting.is_waited_for(str(QUICK))
        found.drafting.react(str(QUICK))
        # Once it is ordered, a further plan makes nobody wait.
        assert await found.plan(0.2, others=(QUICK,)) == (QUICK,)
        assert not found.drafting.awaits_first_pull


async def test_a_long_plan_does_not_rest_for_ever() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        server.fail_next("patch", IMAGE_CACHES, Hang())
        assert await found.plan(0.0, QUICK, SLOW) == (QUICK,)
        assert await found.plan(YIELD_SECONDS) == ()
        await found.finished()
        assert await found.plan(YIELD_SECONDS) == (SLOW,)


async def test_an_overdue_plan_rests_for_nobody() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        server.fail_next("patch", IMAGE_CACHES, Hang())
        assert await found.plan(PATIENCE_SECONDS, QUICK, SLOW) == (QUICK,)
        assert found.rests_until() is None
        await found.finished()
        assert await found.plan(PATIENCE_SECONDS) == (SLOW,)


async def test_an_overdue_plan_gets_turns_between_looks_that_follow_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drafting, "TURN_SECONDS", TIMEOUT_SECONDS)
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(PATIENCE_SECONDS, SLOW) == ()
        # This turn is long enough for all of it.
        assert await found.plan(PATIENCE_SECONDS) == (SLOW,)


async def test_overdue_plans_come_in_the_order_in_which_they_were_seen() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(PATIENCE_SECONDS, SLOWER, SLOW) == ()
        await found.finished()
        assert await found.plan(PATIENCE_SECONDS, SLOW) == (SLOWER,)


async def test_of_two_long_plans_one_waits_until_the_other_is_finished_and_nobody_stays_awake_for_it() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        resync = found.pace.wake_at()
        assert await found.plan(0.0, SLOW, SLOWER) == ()
        assert found.pace.wake_at() == resync
        await found.finished()
        assert await found.plan(0.1, SLOWER) == (SLOW,)
        await found.finished()
        assert await found.plan(0.2) == (SLOWER,)
        assert found.rests_until() is None


async def test_who_changes_again_while_his_plan_is_made_is_planned_after_it() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW) == ()
        assert await found.plan(0.1, SLOW) == ()
        await found.finished()
        assert await found.plan(0.2, SLOW) == (SLOW,)
        await found.finished()
        assert await found.plan(0.3) == (SLOW,)


async def test_what_goes_on_needs_a_place_only_if_its_last_plan_took_long() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW) == ()
        await found.finished()
        assert await found.plan(0.1) == (SLOW,)
        found.pace.planned(Due(others=(SLOW,)), found.made, 0.1, 0.1, {SLOW: LONG_SECONDS})
        assert await found.plan(0.2, others=(SLOW,)) == (SLOW,)
        found.pace.planned(Due(others=(SLOW,)), found.made, 0.2, 0.2, {SLOW: 2 * LONG_SECONDS})
        assert await found.plan(0.3, others=(SLOW,)) == ()
        await found.finished()
        assert await found.plan(0.4) == (SLOW,)


async def test_what_needed_nothing_before_needs_a_place_once_many_pods_are_to_come() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, others=(NIGHTLY,)) == (NIGHTLY,)
        assert not found.made.demands
        found.turn_to(MIDNIGHT - 60)
        assert await found.plan(0.1, others=(NIGHTLY,)) == ()
        await found.finished()
        assert await found.plan(0.2) == (NIGHTLY,)
        assert found.made.demands


async def test_what_goes_on_and_finds_no_time_is_not_even_looked_at() -> None:
    """To find out how long a plan takes is work, too: of many it is left to the next look."""
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, others=(QUICK, NIGHTLY, SLOW, SLOWER), seconds=0.0) == (QUICK,)
        assert await found.plan(0.1, others=(SLOWER,)) == ()
        await found.finished()
        assert await found.plan(0.2) == (SLOWER,)


async def test_workloads_that_nobody_opted_in_need_no_place() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW, *UNCOVERED) == tuple(sorted(UNCOVERED))


async def test_what_a_finished_plan_cost_counts_before_the_next_one_is_due() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert (await found.plan_due(0.0, Changes(workloads=frozenset({SLOW})))).urgent == (SLOW,)
        found.pace.plan_again([SLOWER])
        await found.finished()
        assert not await found.plan_due(0.5)
        assert found.made.only == (SLOW,)
        assert (await found.plan_due(60.0)).others == (SLOWER,)


async def test_the_plan_of_a_workload_that_is_gone_leaves_its_place_to_the_next() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW, SLOWER) == ()
        found.put(SLOW, None)
        assert await found.plan(0.1, SLOW, SLOWER) == (SLOW,)
        await found.finished()
        assert await found.plan(0.2) == (SLOWER,)


async def test_a_workload_that_became_quick_does_not_wait_for_the_plan_of_what_it_was() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW) == ()
        found.put(SLOW, replace(scene().workloads[QUICK], key=SLOW, uid="uid-slow"))
        assert await found.plan(0.1, SLOW) == (SLOW,)
        assert [entry.demand.images for entry in found.made.demands] == [("registry.test/quick:v2",)]


async def test_nothing_rests_that_was_planned_with_everything() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        server.fail_next("patch", IMAGE_CACHES, Hang())
        assert await found.plan(0.0, SLOW) == ()
        await found.plan_everything(0.1, QUICK)
        assert found.drafting.undelivered == {QUICK}
        assert found.rests_until() is None
