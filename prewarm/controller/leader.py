"""Who writes? The instance that holds the lease; the others keep themselves ready."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import structlog

from prewarm.cluster.errors import ClusterError
from prewarm.cluster.lease import LeaderLease, LeadershipLost
from prewarm.controller.loop import Loop
from prewarm.controller.metrics import Metrics

AGAIN_SECONDS = 2.0
LAGGING_SECONDS = 30.0
"""So long a new leader waits to be up to date. Then it leads all the same: others may be no better off."""

log = structlog.stdlib.get_logger(__name__)


class Leader:
    """Stands by until the lease is won, then leads; starts over when it is lost."""

    def __init__(self, lease: LeaderLease, loop: Loop, metrics: Metrics, synced: Callable[[], Awaitable[None]]) -> None:
        """`synced` returns once everything was read and is up to date: nobody should lead on half a cluster."""
        self._lease = lease
        self._loop = loop
        self._metrics = metrics
        self._synced = synced

    async def run(self) -> None:
        """Stand by and lead in turn, until cancelled."""
        await self._synced()
        # What was read lives long: full collections over it would stall the loop for nothing.
        gc.collect()
        gc.freeze()
        while True:
            standby = asyncio.create_task(self._loop.stand_by(), name="standby")

            async def work(standby: "asyncio.Task[None]" = standby) -> None:
                await self._up_to_date()
                await _cancelled(standby)
                self._metrics.leader.set(1)
                try:
                    await self._loop.lead()
                finally:
                    self._metrics.stand_by()

            try:
                await self._lease.run(work)
            except LeadershipLost as error:
                log.warning("standing by", reason=str(error))
            except ClusterError as error:
                log.warning("gave the lease back", reason=str(error))
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                await _cancelled(standby)

    async def _up_to_date(self) -> None:
        try:
            async with asyncio.timeout(LAGGING_SECONDS):
                await self._synced()
        except TimeoutError:
            log.warning("leading out of step with the server", seconds=LAGGING_SECONDS)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
