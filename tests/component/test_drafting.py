"""Plans that take long wait for the first pulls of quicker ones, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import Writer
from prewarm.controller.clocks import Clocks
from prewarm.controller.drafting import YIELD_SECONDS, Drafting
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.controller.pacing import Due, Pace
from prewarm.history import History
from prewarm.model.intents import IMAGE_CACHES
from prewarm.model.pods import PodTemplate
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey
from tests.support.clusters import cluster, deployment, node, template
from tests.support.fake_api_server import FakeApiServer, Hang
from tests.support.mirroring import connected

QUICK = WorkloadKey("Deployment", "shop", "quick")
SLOW = WorkloadKey("Deployment", "shop", "slow")
TIMEOUT_SECONDS = 20.0
POOL, NODES = {"pool": "small"}, 600


def scene() -> ClusterSnapshot:
    """A paused rollout in a pool of two nodes, and one on all of many."""
    nodes = [node(f"n{number}") for number in range(NODES)]
    small = [replace(found, labels={**found.labels, **POOL}) for found in nodes[:2]]
    pooled = template("registry.test/quick:v2", name="quick")
    pooled = PodTemplate(pooled.labels, replace(pooled.shape, node_selector=tuple(POOL.items())))
    return cluster(
        [*small, *nodes[2:]],
        workloads=[
            deployment(pooled, replicas=1, key=QUICK, paused=True),
            deployment(template("registry.test/slow:v2", name="slow"), replicas=10, key=SLOW, paused=True),
        ],
    )


class Desk:
    """A Drafting whose clock stands still unless it is set, and who is told when there is reason to hurry."""

    def __init__(self, drafting: Drafting, clock: list[float], hurried: asyncio.Event) -> None:
        self.drafting = drafting
        self.hurried = hurried
        self._clock = clock
        self._snapshot = scene()

    async def plan(self, at: float, *urgent: WorkloadKey, ordering: bool = False) -> tuple[WorkloadKey, ...] | None:
        """What is planned at a time of what is due since 0."""
        self._clock[0] = at
        due = Due(urgent=urgent, seconds=60.0)
        made = await self.drafting.plan(due, self._snapshot, History(), 0.0, None, ordering=ordering)
        return made.only


@asynccontextmanager
async def desk(server: FakeApiServer) -> AsyncIterator[Desk]:
    async with connected(server) as client:
        store, clock, hurried = Store(), [0.0], asyncio.Event()
        metrics = Metrics(version="test")
        execution = Execution(Writer(client), store, feeds(store), metrics)
        clocks = Clocks(lambda: 1000.0, lambda: clock[0], lambda: clock[0])
        drafting = Drafting(Pace(3600.0), execution, metrics, clocks, hurried.set)
        writing = asyncio.create_task(drafting.run(), name="drafting")
        try:
            yield Desk(drafting, clock, hurried)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def test_a_long_plan_waits_until_the_first_pull_of_a_quick_one_is_ordered() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        hang = Hang()
        server.fail_next("patch", IMAGE_CACHES, hang)
        assert await found.plan(0.0, QUICK, SLOW) == (QUICK,)
        assert found.drafting.wakes_at == YIELD_SECONDS
        hang.released.set()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await found.hurried.wait()
        assert await found.plan(0.1, SLOW) == ()
        # Whoever looks at the pulls orders one, and it is being created.
        found.drafting.hurried = False
        assert await found.plan(0.2, SLOW, ordering=True) == ()
        assert await found.plan(0.3, SLOW) == (SLOW,)
        assert found.drafting.wakes_at is None


async def test_a_long_plan_does_not_wait_for_ever() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        server.fail_next("patch", IMAGE_CACHES, Hang())
        assert await found.plan(0.0, QUICK, SLOW) == (QUICK,)
        assert await found.plan(YIELD_SECONDS, SLOW) == (SLOW,)


async def test_a_long_plan_waits_for_nobody_where_nobody_waits() -> None:
    async with FakeApiServer.running() as server, desk(server) as found:
        assert await found.plan(0.0, SLOW) == (SLOW,)
