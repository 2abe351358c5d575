"""Long plans are made in a thread, one at a time, which rests whenever the event loop asks for it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from prewarm.controller.aside import Aside
from prewarm.model.plans import Plan
from prewarm.model.workloads import WorkloadKey
from prewarm.placement.pauses import between_steps
from tests.support.clusters import WEB

TIMEOUT_SECONDS = 20.0
PLAN = Plan(only=(WEB,))
OTHER = WorkloadKey("Deployment", "shop", "other")


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Aside, asyncio.Event]]:
    told = asyncio.Event()
    aside = Aside(told.set)
    making = asyncio.create_task(aside.run(), name="aside")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            yield aside, told
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)


class Work:
    """A plan in the making, whose steps are taken one by one."""

    def __init__(self) -> None:
        self.steps = 0
        self.done = threading.Event()
        self.begun = threading.Event()

    def __call__(self) -> Plan:
        wait = between_steps()
        while not self.done.is_set():
            wait()
            self.steps += 1
            self.begun.set()
        return PLAN

    async def goes_on(self) -> None:
        """Return once more steps are taken."""
        self.begun.clear()
        assert await asyncio.to_thread(self.begun.wait, TIMEOUT_SECONDS)


async def test_the_event_loop_goes_on_while_a_plan_is_made() -> None:
    async with running() as (aside, told):
        work = Work()
        aside.begin(WEB, work)
        await work.goes_on()
        assert aside.workload == WEB
        assert aside.take() is None
        work.done.set()
        await told.wait()
        finished = aside.take()
        assert finished is not None
        assert (finished.workload, finished.plan) == (WEB, PLAN)
        assert finished.seconds > 0
        assert aside.workload is None


async def test_the_thread_rests_until_it_may_go_on() -> None:
    async with running() as (aside, told):
        work = Work()
        aside.begin(WEB, work)
        for _ in range(20):
            await work.goes_on()
            await aside.rest()
            before = work.steps
            # Whoever asks again gets the same answer.
            await aside.rest()
            assert work.steps == before
            aside.go_on()
        work.done.set()
        await told.wait()


async def test_who_asks_for_rest_again_at_once_gets_it() -> None:
    async with running() as (aside, told):
        work = Work()
        aside.begin(WEB, work)
        await work.goes_on()
        for _ in range(200):
            await aside.rest()
            aside.go_on()
        await aside.rest()
        before = work.steps
        await asyncio.sleep(0)
        assert work.steps == before
        aside.go_on()
        work.done.set()
        await told.wait()


async def test_nothing_is_computed_before_the_thread_may_go_on() -> None:
    async with running() as (aside, told):
        await aside.rest()
        work = Work()
        work.done.set()
        aside.begin(WEB, work)
        for _ in range(10):
            await asyncio.sleep(0)
        await aside.rest()
        assert not aside.finished
        aside.go_on()
        await told.wait()
        assert aside.finished


async def test_rest_ends_when_the_plan_does() -> None:
    async with running() as (aside, told):
        begun, go_on = threading.Event(), threading.Event()

        def make() -> Plan:
            begun.set()
            assert go_on.wait(TIMEOUT_SECONDS)
            return PLAN

        aside.begin(WEB, make)
        assert await asyncio.to_thread(begun.wait, TIMEOUT_SECONDS)
        resting = asyncio.create_task(aside.rest())
        await asyncio.sleep(0)
        assert not resting.done()
        go_on.set()
        await resting
        aside.go_on()
        await told.wait()


async def test_there_is_room_for_one_until_it_is_taken() -> None:
    async with running() as (aside, told):
        aside.begin(WEB, lambda: PLAN)
        await told.wait()
        with pytest.raises(RuntimeError, match="one plan at a time"):
            aside.begin(WEB, lambda: PLAN)
        aside.take()
        told.clear()
        aside.begin(WEB, lambda: PLAN)
        await told.wait()
        assert aside.finished


def telling(work: Work) -> tuple[Callable[[], Plan], threading.Event]:
    """The same work, and an event that is set when it ends, however it does."""
    ended = threading.Event()

    def make() -> Plan:
        try:
            return work()
        finally:
            ended.set()

    return make, ended


async def test_a_plan_is_given_up_with_whoever_asked_for_it() -> None:
    work = Work()
    make, ended = telling(work)
    async with running() as (aside, _):
        aside.begin(WEB, make)
        await work.goes_on()
    assert await asyncio.to_thread(ended.wait, TIMEOUT_SECONDS)


async def test_a_resting_plan_is_given_up_too() -> None:
    work = Work()
    make, ended = telling(work)
    async with running() as (aside, _):
        aside.begin(WEB, make)
        await work.goes_on()
        await aside.rest()
    assert await asyncio.to_thread(ended.wait, TIMEOUT_SECONDS)


async def test_what_is_given_up_ends_at_its_next_step_and_leaves_its_place_at_once() -> None:
    async with running() as (aside, told):
        work = Work()
        make, ended = telling(work)
        aside.begin(WEB, make)
        await work.goes_on()
        aside.give_up()
        assert aside.workload is None
        aside.begin(OTHER, lambda: PLAN)
        assert await asyncio.to_thread(ended.wait, TIMEOUT_SECONDS)
        await told.wait()
        finished = aside.take()
        assert finished is not None
        assert finished.workload == OTHER


async def test_what_rests_is_given_up_too_and_what_comes_next_rests() -> None:
    async with running() as (aside, told):
        work = Work()
        make, ended = telling(work)
        aside.begin(WEB, make)
        await work.goes_on()
        await aside.rest()
        aside.give_up()
        next_one = Work()
        aside.begin(OTHER, next_one)
        assert await asyncio.to_thread(ended.wait, TIMEOUT_SECONDS)
        await aside.rest()
        assert next_one.steps == 0
        next_one.done.set()
        aside.go_on()
        await told.wait()
        assert aside.workload == OTHER


async def test_what_is_given_up_before_it_began_or_when_it_is_finished_is_forgotten() -> None:
    async with running() as (aside, told):
        aside.give_up()
        aside.begin(WEB, lambda: PLAN)
        aside.give_up()
        aside.begin(OTHER, lambda: PLAN)
        await told.wait()
        assert aside.finished
        aside.give_up()
        assert aside.take() is None
        assert aside.workload is None


async def test_an_error_in_a_plan_ends_who_makes_them() -> None:
    def make() -> Plan:
        raise LookupError("no such node")

    aside = Aside(lambda: None)
    making = asyncio.create_task(aside.run(), name="aside")
    aside.begin(WEB, make)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        with pytest.raises(LookupError, match="no such node"):
            await making
