"""Has puller pods created while the next look at the pulls goes on: a busy server takes a second for a hundred."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from prewarm.cluster.writer import WriteResult
from prewarm.controller.execution import Execution
from prewarm.model.intents import Create

AT_ONCE = 40
"""Pods created at the same time; of the writer's places some are left to creates that a rollout waits for."""


class Ordering:
    """A queue of pods to be created in front of the writer; whoever fills it bounds what is in it."""

    def __init__(self, execution: Execution, answered: Callable[[WriteResult, float], None]) -> None:
        """`answered` gets each result and the time at which the pod was ordered."""
        self._execution = execution
        self._answered = answered
        self._waiting: deque[tuple[Create, float]] = deque()
        self._more = asyncio.Semaphore(0)

    def put(self, creates: Iterable[Create], now: float) -> None:
        """Queue creates; they begin in this order."""
        for create in creates:
            self._waiting.append((create, now))
            self._more.release()

    async def run(self) -> None:
        """Create until cancelled; what still waits then is ordered anew by whoever decides next."""
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._work(), name=f"create pods {number}")

    async def _work(self) -> None:
        while True:
            await self._more.acquire()
            create, ordered_at = self._waiting.popleft()
            for result in await self._execution.execute((create,)):
                self._answered(result, ordered_at)
