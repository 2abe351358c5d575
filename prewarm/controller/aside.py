"""Makes one long plan at a time in a thread, between the event loop's own work: watches, probes, lease, quicker plans.

Both use what planning remembers of the cluster. So they never compute at the same time: whoever decides on the event
loop has the thread rest first, which it does at the next pod that it places.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Condition

from msgspec import Struct

from prewarm.model.plans import Plan
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import waiting_between_steps


class Finished(Struct, frozen=True):
    """A plan for one workload that was made in the thread."""

    workload: WorkloadKey
    plan: Plan
    seconds: float
    """Processor time that it took."""


class _Making(Struct, eq=False):
    """A plan that somebody asked for."""

    workload: WorkloadKey
    make: Callable[[], Plan]
    unwanted: bool = False
    """Whether it is to end at its next step."""


class _UnwantedError(Exception):
    """Nobody wants the plan any more."""


class Aside:
    """One place for a plan that takes long; whoever began it takes it when it is finished."""

    def __init__(self, tell: Callable[[], None]) -> None:
        """`tell` is called when a plan is finished."""
        self._tell = tell
        self._begun: _Making | None = None
        self._begins = asyncio.Event()
        self._finished: Finished | None = None
        self._ended = asyncio.Event()
        self._computing = False
        self._turns = Condition()
        self._rests: asyncio.Event | None = None
        """Set once the thread rests; None while it may compute."""
        self._abandoned = False

    @property
    def workload(self) -> WorkloadKey | None:
        """Whose plan is being made, or was and nobody has taken it yet."""
        return None if self._begun is None else self._begun.workload

    @property
    def finished(self) -> bool:
        """Whether there is a plan to take."""
        return self._finished is not None

    def begin(self, workload: WorkloadKey, make: Callable[[], Plan]) -> None:
        """Have a plan made.

        Raises:
            RuntimeError: if there is one already.
        """
        if self._begun is not None:
            raise RuntimeError("one plan at a time is made beside the event loop")
        self._begun = _Making(workload, make)
        self._ended.clear()
        self._begins.set()

    def take(self) -> Finished | None:
        """The plan, once it is finished; then there is room for another."""
        finished, self._finished = self._finished, None
        if finished is not None:
            self._begun = None
        return finished

    def give_up(self) -> None:
        """End the plan that is being made, or forget it: there is room for another at once."""
        begun, self._begun, self._finished = self._begun, None, None
        if begun is not None:
            with self._turns:
                begun.unwanted = True
                self._turns.notify()

    async def wait(self, seconds: float) -> None:
        """Return once the plan is finished, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def rest(self) -> None:
        """Return once the thread does not compute; it will not until `go_on`."""
        with self._turns:
            if self._rests is None:
                self._rests = asyncio.Event()
                if not self._computing:
                    self._rests.set()
            rests = self._rests
            self._turns.notify()
        await rests.wait()

    def go_on(self) -> None:
        """Let the thread compute."""
        with self._turns:
            self._rests = None
            self._turns.notify()

    async def run(self) -> None:
        """Make plans until cancelled; one that is being made then is given up."""
        with self._turns:
            self._abandoned = False
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="plan")
        try:
            while True:
                await self._begins.wait()
                self._begins.clear()
                begun = self._begun
                if begun is None:
                    continue
                finished = await loop.run_in_executor(executor, self._make, loop, begun)
                if not begun.unwanted:
                    self._finished = finished
                    self._ended.set()
                    self._tell()
        finally:
            with self._turns:
                self._abandoned = True
                self._turns.notify()
                if self._rests is not None:
                    # What is being made is of no use any more: nobody need wait for it.
                    self._rests.set()
            executor.shutdown(wait=False, cancel_futures=True)

    def _make(self, loop: asyncio.AbstractEventLoop, begun: _Making) -> Finished | None:
        """The plan; None once nobody wants it."""

        def take_turns() -> None:
            # Asked for each pod, and mostly in vain: without the lock.
            if self._rests is not None or self._abandoned or begun.unwanted:
                self._wait(loop, begun)

        started = time.thread_time()
        with self._turns:
            self._computing = True
        try:
            take_turns()
            with waiting_between_steps(take_turns):
                made = begun.make()
        except _UnwantedError:
            return None
        finally:
            with self._turns:
                self._computing = False
                if self._rests is not None and not self._abandoned:
                    loop.call_soon_threadsafe(self._rests.set)
        return Finished(begun.workload, made, time.thread_time() - started)

    def _wait(self, loop: asyncio.AbstractEventLoop, begun: _Making) -> None:
        """Rest until it is this thread's turn.

        Raises:
            _UnwantedError: if there will be none.
        """
        told: asyncio.Event | None = None
        with self._turns:
            while self._rests is not None and not (self._abandoned or begun.unwanted):
                if self._rests is not told:
                    told = self._rests
                    loop.call_soon_threadsafe(told.set)
                self._turns.wait()
            if self._abandoned or begun.unwanted:
                raise _UnwantedError
