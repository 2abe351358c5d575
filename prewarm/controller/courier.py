"""Has ImageCaches written while the next plan is made: the latest word on each, one write at a time."""

import asyncio
from collections.abc import Callable, Collection, Iterable

from prewarm.cluster.writer import WriteResult
from prewarm.controller.execution import Execution
from prewarm.model.intents import Intent
from prewarm.model.snapshot import ObjectKey
from prewarm.model.workloads import WorkloadKey

AT_ONCE = 16
"""Objects that are written at the same time."""

_Letter = tuple[Intent, frozenset[WorkloadKey]]


class Courier:
    """A queue of what plans say, in front of the writer.

    Each intent says all that an object should be, or that it should not be: a newer one takes the place of one that
    still waits. While one is being written, the next for the same object waits, so that the newest is written last.
    """

    def __init__(self, execution: Execution, answered: Callable[[WriteResult, frozenset[WorkloadKey]], None]) -> None:
        """`answered` gets each result, with the workloads about which it is."""
        self._execution = execution
        self._answered = answered
        self._waiting: dict[ObjectKey, _Letter] = {}
        self._written_to: dict[ObjectKey, frozenset[WorkloadKey]] = {}
        self._more = asyncio.Event()

    def put(self, intents: Iterable[Intent], about: Collection[WorkloadKey]) -> None:
        """Queue what follows from a plan for these workloads."""
        for intent in intents:
            self._waiting[intent.namespace, intent.name] = (intent, frozenset(about))
            self._more.set()

    @property
    def undelivered(self) -> frozenset[WorkloadKey]:
        """Workloads of whose plans something is not written yet."""
        waiting = (about for _, about in self._waiting.values())
        return frozenset[WorkloadKey]().union(*waiting, *self._written_to.values())

    async def run(self) -> None:
        """Write until cancelled; what still waits then is planned anew by whoever decides next."""
        async with asyncio.TaskGroup() as group:
            while True:
                while len(self._written_to) < AT_ONCE and (key := self._next()) is not None:
                    letter = self._waiting.pop(key)
                    self._written_to[key] = letter[1]
                    group.create_task(self._write(key, letter), name=f"deliver {' '.join(key)}")
                await self._more.wait()
                self._more.clear()

    async def _write(self, key: ObjectKey, letter: _Letter) -> None:
        intent, about = letter
        try:
            results = await self._execution.execute((intent,))
        finally:
            del self._written_to[key]
            self._more.set()
        for result in results:
            self._answered(result, about)

    def _next(self) -> ObjectKey | None:
        return next((key for key in self._waiting if key not in self._written_to), None)
