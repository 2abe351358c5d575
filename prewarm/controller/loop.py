"""Waits for changes and runs cycles while the lease is held; keeps itself ready to take over while it is not."""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from prewarm.cluster.changes import Changes
from prewarm.cluster.errors import ClusterError
from prewarm.controller.batcher import Batcher
from prewarm.controller.health import Heartbeat
from prewarm.controller.settings import Settings
from prewarm.controller.term import Services, Term, Work
from prewarm.model.workloads import KubeletEvent

RETRY_SECONDS = 1.0
"""After a cycle that failed; what failed is planned again."""
STANDBY_EVENTS = 50_000
"""Kubelet events that an instance without the lease keeps for the moment in which it gets it."""
LONGEST_WAIT_SECONDS = 30.0

log = structlog.stdlib.get_logger(__name__)


class Loop:
    """The one task that decides. Everything else only brings changes to the store."""

    def __init__(self, settings: Settings, services: Services, heartbeat: Heartbeat) -> None:
        self._settings = settings
        self._services = services
        self._heartbeat = heartbeat
        self._batcher = Batcher(
            idle=settings.batch_idle_seconds, longest=settings.batch_max_seconds, clock=services.clocks.steady
        )
        self._nudged = asyncio.Event()
        self._hurried = False
        self._standby: deque[KubeletEvent] = deque(maxlen=STANDBY_EVENTS)
        self._stopping = False

    def nudge(self) -> None:
        """Run a cycle soon, whether the store changed or not."""
        self._nudged.set()

    def hurry(self) -> None:
        """Run a cycle at once: what a rollout waits for has come."""
        self._hurried = True
        self._nudged.set()

    def stop(self) -> None:
        """Say that the end is wanted: then what was learnt is stored before it comes."""
        self._stopping = True

    async def stand_by(self) -> None:
        """Keep what an active instance would have read; run it while the lease is somebody else's."""
        while True:
            await self._services.store.wait_for_change()
            self._services.store.changed()
            self._standby.extend(self._services.store.drain_events())
            await asyncio.sleep(self._settings.batch_max_seconds)

    async def lead(self) -> None:
        """Run cycles until cancelled.

        Raises:
            ClusterError: if what was learnt, or what the API server serves, cannot be read: the lease is better held by
                somebody who can.
        """
        memory = await self._services.persistence.load()
        unsteerable = await self._services.unsteerable()
        term = Term(self._settings, self._services, memory, unsteerable, nudge=self.nudge, hurry=self.hurry)
        events, self._standby = tuple(self._standby), deque(maxlen=STANDBY_EVENTS)
        work = Work(self._services.store.changed(), events, self._services.clocks.steady())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(term.in_background(), name="background writes")
                while True:
                    wake_at = await self._cycle(term, work)
                    work = await self._next(wake_at)
        finally:
            if self._stopping:
                await term.persist()

    async def _cycle(self, term: Term, work: Work) -> float:
        steady = self._services.clocks.steady
        self._heartbeat.begin()
        started = steady()
        try:
            return await term.cycle(work)
        except ClusterError as error:
            log.warning("cycle failed, trying again", problem=str(error))
            term.plan_everything()
            return steady() + RETRY_SECONDS
        finally:
            self._heartbeat.end()
            self._services.metrics.cycle.observe(steady() - started)

    async def _next(self, wake_at: float) -> Work:
        """Wait for a change, a nudge, or the time to look again; then for the burst to be over.

        A changed intention is not waited after: what follows from it, a rollout's first burst, takes the processors.
        Nor is it where there is something to do already.
        """
        store, steady = self._services.store, self._services.clocks.steady
        left = min(max(0.0, wake_at - steady()), LONGEST_WAIT_SECONDS)
        await self._change_or_nudge(left)
        seen_at = steady()
        self._nudged.clear()
        collected = [store.changed()]

        async def more(seconds: float) -> bool:
            if collected[-1].intended or self._hurried:
                return False
            came = await self._change_or_nudge(seconds)
            self._nudged.clear()
            collected.append(store.changed())
            return came

        if left > 0:
            await self._batcher.gather(more)
        self._hurried = False
        return Work(merged(collected), store.drain_events(), seen_at)

    async def _change_or_nudge(self, seconds: float) -> bool:
        """Wait for either; False if none came in time."""
        waiting = (
            asyncio.create_task(self._services.store.wait_for_change(), name="wait for a change"),
            asyncio.create_task(self._nudged.wait(), name="wait for a nudge"),
        )
        try:
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def merged(changes: Sequence[Changes]) -> Changes:
    """All changes as one."""
    if len(changes) == 1:
        return changes[0]
    return Changes(
        workloads=frozenset().union(*(change.workloads for change in changes)),
        intended=frozenset().union(*(change.intended for change in changes)),
        image_caches=frozenset().union(*(change.image_caches for change in changes)),
        nodes=frozenset().union(*(change.nodes for change in changes)),
        used_nodes=frozenset().union(*(change.used_nodes for change in changes)),
        namespaces=frozenset().union(*(change.namespaces for change in changes)),
        policies=frozenset().union(*(change.policies for change in changes)),
        quotas=frozenset().union(*(change.quotas for change in changes)),
        image_policies=frozenset().union(*(change.image_policies for change in changes)),
    )
