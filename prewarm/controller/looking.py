"""Looks at the pulls: beside the event loop where that takes long, or nobody would renew the lease meanwhile."""

import asyncio
from functools import partial
from http import HTTPStatus

from msgspec.structs import replace

from prewarm.cluster.writer import WriteOutcome, WriteResult
from prewarm.controller.clocks import Clocks
from prewarm.history import History
from prewarm.model.intents import PODS
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller import PullerDecision, PullerMemory, PullerSettings, reconcile

INLINE_SECONDS = 0.3
"""After a look that took longer, the next one leaves the event loop to lease, probes and reflectors."""
AGAIN_SECONDS = 1.0
"""After a look that kept places for first pulls to come."""
INLINE_PAIRS = 10_000
"""So does one that judges more pairs of image and node than this for the first time: 4 to 8 microseconds each."""


class Looks:
    """One look after the other, and what the API server answered to what they ordered.

    Attributes:
        memory: the puller's; to be used between two looks only.
        seconds: how long the last look took.
    """

    def __init__(self, settings: PullerSettings, memory: PullerMemory, clocks: Clocks) -> None:
        self.memory = memory
        self.seconds = 0.0
        self._settings = settings
        self._clocks = clocks
        self._looking = False
        self._unheeded: list[tuple[WriteResult, float]] = []

    async def look(self, snapshot: ClusterSnapshot, history: History, first_pulls: int = 0) -> PullerDecision:
        """Decide what is to be done now; up to half of the places are kept for so many first pulls to come."""
        started = self._clocks.steady()
        kept = min(first_pulls, self._settings.cluster_pulls // 2, self._settings.orders_at_once // 2)
        decide = partial(reconcile, snapshot, self._settings, history, self.memory, first_pulls=kept)
        slow = self.seconds > INLINE_SECONDS or self.memory.unjudged(snapshot) > INLINE_PAIRS
        decision = await self._beside(decide) if slow else decide()
        self.seconds = self._clocks.steady() - started
        if kept:
            # Nothing need change until these places are free for others.
            again_at = snapshot.taken_at + AGAIN_SECONDS
            decision = replace(decision, wake_at=min(again_at, decision.wake_at or again_at))
        return decision

    async def _beside(self, decide: "partial[PullerDecision]") -> PullerDecision:
        self._looking = True
        decision = await asyncio.to_thread(decide)
        self._looking = False
        unheeded, self._unheeded = self._unheeded, []
        for result, ordered_at in unheeded:
            self.heed(result, ordered_at)
        return decision

    def heed(self, result: WriteResult, ordered_at: float) -> None:
        """Tell the puller whether the server took a pod; during a look, once that is over."""
        intent, memory = result.intent, self.memory
        if intent.resource != PODS:
            return
        if self._looking:
            self._unheeded.append((result, ordered_at))
        elif result.outcome in {WriteOutcome.REFUSED, WriteOutcome.NAMESPACE_ENDS}:
            memory.refused(intent.namespace, intent.name, result.message, ordered_at)
        elif result.outcome is WriteOutcome.FAILED:
            # Of what the server could not do it tells why; a request that it did not take up (409, 429) is only late.
            words = (result.message or result.reason) if result.code >= HTTPStatus.INTERNAL_SERVER_ERROR else ""
            memory.lost(intent.namespace, intent.name, self._clocks.wall(), words)
        else:
            memory.arrived(intent.namespace, intent.name, self._clocks.wall())
