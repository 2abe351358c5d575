"""Has puller pods created while looks go on: a busy server takes a second for a hundred."""

import asyncio
from collections.abc import Callable, Iterable

from prewarm.cluster.writer import WriteResult
from prewarm.controller.execution import Execution
from prewarm.model.intents import Create

AT_ONCE = 40
"""Pods created at the same time."""
FOREMOST_AT_ONCE = 8
"""Of those that somebody waits for; places of their own, beside the others'."""
YIELD_SECONDS = 0.2
"""Others begin when none of those is left, or this much later."""

_Ordered = tuple[Create, float]


class Ordering:
    """Two queues of pods to be created in front of the writer; whoever fills them bounds what is in them."""

    def __init__(self, execution: Execution, answered: Callable[[WriteResult, float], None]) -> None:
        """`answered` gets each result and the time at which the pod was ordered."""
        self._execution = execution
        self._answered = answered
        self._foremost: asyncio.Queue[_Ordered] = asyncio.Queue()
        self._others: asyncio.Queue[_Ordered] = asyncio.Queue()
        self._awaited = 0
        self._begins = asyncio.Event()
        self._begins.set()

    @property
    def busy(self) -> bool:
        """Whether pods that somebody waits for are not created yet."""
        return self._awaited > 0

    def put(self, creates: Iterable[Create], now: float, *, foremost: bool = False) -> None:
        """Queue creates; they begin in this order, the foremost before all others."""
        queue = self._foremost if foremost else self._others
        for create in creates:
            queue.put_nowait((create, now))
            self._awaited += foremost

    def rest(self, resting: bool) -> None:
        """Let all but the foremost wait, or no longer: first pulls of other rollouts are about to be ordered."""
        if resting:
            self._begins.clear()
        else:
            self._begins.set()

    async def run(self) -> None:
        """Create until cancelled; what still waits then is ordered anew by whoever decides next."""
        async with asyncio.TaskGroup() as group:
            for number in range(FOREMOST_AT_ONCE):
                group.create_task(self._create_foremost(), name=f"create foremost pods {number}")
            for number in range(AT_ONCE):
                group.create_task(self._create_others(), name=f"create pods {number}")

    async def _create_foremost(self) -> None:
        while True:
            create, ordered_at = await self._foremost.get()
            try:
                results = await self._execution.execute((create,))
            finally:
                self._awaited -= 1
                self._foremost.task_done()
            self._heard(results, ordered_at)

    async def _create_others(self) -> None:
        while True:
            create, ordered_at = await self._others.get()
            await self._begins.wait()
            await self._yield_to_the_foremost()
            self._heard(await self._execution.execute((create,)), ordered_at)

    async def _yield_to_the_foremost(self) -> None:
        try:
            async with asyncio.timeout(YIELD_SECONDS):
                await self._foremost.join()
        except TimeoutError:
            return

    def _heard(self, results: Iterable[WriteResult], ordered_at: float) -> None:
        for result in results:
            self._answered(result, ordered_at)
