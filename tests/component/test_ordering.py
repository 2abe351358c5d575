"""Pods that rollouts wait for are created before others, and others are created all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import WriteOutcome, Writer, WriteResult
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.controller.ordering import Ordering
from prewarm.model.intents import PODS, Create
from tests.support.fake_api_server import FakeApiServer, Hang
from tests.support.mirroring import connected

TIMEOUT_SECONDS = 20.0


def pod(name: str) -> Create:
    return Create(
        PODS, "shop", name, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}}
    )


class Answers:
    """What was heard of pods that were ordered, with whether awaited ones were under way by then."""

    def __init__(self) -> None:
        self.ordering: Ordering | None = None
        self._heard: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()

    def __call__(self, result: WriteResult, _ordered_at: float) -> None:
        assert result.outcome is WriteOutcome.CREATED
        assert self.ordering is not None
        self._heard.put_nowait((result.intent.name, self.ordering.busy))

    async def next(self) -> tuple[str, bool]:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self._heard.get()


@asynccontextmanager
async def running(server: FakeApiServer) -> AsyncIterator[tuple[Ordering, Answers]]:
    async with connected(server) as client:
        store, answers = Store(), Answers()
        ordering = Ordering(Execution(Writer(client), store, feeds(store), Metrics(version="test")), answers)
        answers.ordering = ordering
        creating = asyncio.create_task(ordering.run(), name="ordering")
        try:
            yield ordering, answers
        finally:
            creating.cancel()
            await asyncio.gather(creating, return_exceptions=True)


async def test_further_pods_wait_while_they_are_to_and_awaited_ones_do_not() -> None:
    async with FakeApiServer.running() as server, running(server) as (ordering, answers):
        ordering.rest(True)
        ordering.put([pod("second")], 0.0)
        ordering.put([pod("first")], 0.0, foremost=True)
        assert await answers.next() == ("first", False)
        assert server.count("create", PODS) == 1
        ordering.rest(False)
        assert await answers.next() == ("second", False)


async def test_it_is_busy_until_the_last_awaited_pod_is_created() -> None:
    async with FakeApiServer.running() as server, running(server) as (ordering, answers):
        hang = Hang()
        server.fail_next("create", PODS, hang)
        assert not ordering.busy
        ordering.put([pod("first")], 0.0, foremost=True)
        await server.until(lambda: server.count("create", PODS) == 1)
        ordering.put([pod("other")], 0.0, foremost=True)
        assert await answers.next() == ("other", True)
        hang.released.set()
        assert await answers.next() == ("first", False)


async def test_an_awaited_pod_whose_answer_does_not_come_keeps_others_waiting_for_a_moment_only() -> None:
    async with FakeApiServer.running() as server, running(server) as (ordering, answers):
        server.fail_next("create", PODS, Hang())
        ordering.put([pod("first")], 0.0, foremost=True)
        await server.until(lambda: server.count("create", PODS) == 1)
        ordering.put([pod("second")], 0.0)
        assert await answers.next() == ("second", True)
