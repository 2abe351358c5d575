"""Says what is to be held, opens held rollouts, and does not ask twice for what is under way."""

from collections.abc import Collection

import structlog

from prewarm.delivery import Gates, decide_gates
from prewarm.delivery.gated import Gated, gated_by_policy, gated_text
from prewarm.model.intents import Intent
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey

AGAIN_SECONDS = 2.0
"""After that long without effect, opening is asked for again."""

log = structlog.stdlib.get_logger("prewarm.decisions")


class Gatekeeper:
    """Remembers what was asked for lately; losing that costs a repeated request, never a gate that stays shut."""

    def __init__(self) -> None:
        self._asked: dict[WorkloadKey, tuple[str, float]] = {}
        self.wakes_at: float | None = None
        self._gated: Gated | None = None

    def look(
        self, snapshot: ClusterSnapshot, plan: Plan | None, unready: Collection[WorkloadKey] = ()
    ) -> tuple[Intent, ...]:
        """What is to be written so that the gates that may open do.

        `unready`: workloads whose pods would not be steered to all of their warm nodes yet.
        """
        found = decide_gates(snapshot, plan, unready)
        self.wakes_at = found.wake_at
        return self._new(found, snapshot.taken_at)

    def gated(self, snapshot: ClusterSnapshot, plan: Plan | None) -> str | None:
        """What the admission policy is to be told of the workloads that policies gate; None if it knows already."""
        if plan is None or (plan.only is not None and self._gated is None):
            return None
        before, self._gated = self._gated, gated_by_policy(snapshot, self._gated, plan.only)
        if self._gated == before:
            return None
        text, left_out = gated_text(self._gated)
        if left_out:
            log.warning("policies gate more workloads than the Lease can list: some are not held", left_out=left_out)
        return text

    def _new(self, found: Gates, now: float) -> tuple[Intent, ...]:
        intents: list[Intent] = []
        asked: dict[WorkloadKey, tuple[str, float]] = {}
        for opened in found.opened:
            key, version = opened.gate.workload.key, opened.gate.workload.resource_version
            before = self._asked.get(key)
            if before is not None and before[0] == version and before[1] <= now < before[1] + AGAIN_SECONDS:
                asked[key] = before
                self._wake(before[1] + AGAIN_SECONDS)
                continue
            asked[key] = (version, now)
            self._wake(now + AGAIN_SECONDS)
            intents.append(opened.patch)
        self._asked = asked
        return tuple(intents)

    def _wake(self, at: float) -> None:
        self.wakes_at = at if self.wakes_at is None else min(self.wakes_at, at)
