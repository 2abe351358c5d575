"""Keeps labels on warm nodes, and the entries by which the admission policy steers, and takes both away in time."""

from collections.abc import Collection, Mapping

import structlog

from prewarm.api.steer_label import our_labels
from prewarm.cluster.client import Client
from prewarm.delivery import steering
from prewarm.delivery.steering import ENTRY_SECONDS, RENEW_SECONDS, Steered
from prewarm.model.intents import Intent
from prewarm.model.nodes import Node
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState
from prewarm.model.workloads import WorkloadKey
from prewarm.presence import Warmth

AGAIN_SECONDS = 2.0
"""After that long without effect, a label is written again; so are entries, once, since nobody tells of theirs."""
REPEAT_SECONDS = 60.0
"""Between two more writes of the same entries, of which the server makes nothing if they are there."""

_Entries = frozenset[tuple[WorkloadKey, str, str]]

log = structlog.stdlib.get_logger("prewarm.decisions")


async def unsteerable(client: Client, *, enabled: bool) -> SteerState | None:
    """Why no pods can be steered here; None if they can.

    Raises:
        ClusterError: if the API server does not say what it serves.
    """
    if not enabled:
        return SteerState.SWITCHED_OFF
    served = await client.serves("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies")
    if not served:
        log.warning("the API server has no MutatingAdmissionPolicy (Kubernetes 1.36): no pods are steered")
    return None if served else SteerState.UNSUPPORTED


class Steersman:
    """What is steered, by the last plan that spoke of each workload; losing it costs one look at all nodes."""

    def __init__(self, namespace: str, obstacle: SteerState | None) -> None:
        self.obstacle = obstacle
        self._namespace = namespace
        self._steered: Mapping[WorkloadKey, Steered] | None = None
        self._nodes: Mapping[str, Node] = {}
        self._carrying: set[str] = set()
        self._wanted: Mapping[str, Mapping[str, str]] = {}
        self._asked: dict[str, tuple[tuple[tuple[str, str | None], ...], float]] = {}
        self._entries: _Entries | None = None
        self._until = 0.0
        self._say_at: float | None = None
        self.wakes_at: float | None = None

    @property
    def workloads(self) -> int:
        """How many are steered."""
        return len(self._steered or ())

    @property
    def nodes(self) -> int:
        """How many are to carry a label."""
        return len(self._wanted)

    def unready(self, snapshot: ClusterSnapshot) -> Collection[WorkloadKey]:
        """Workloads of whose warm nodes some carry no label yet."""
        waiting = {
            (key, value)
            for name, labels in self._wanted.items()
            for key, value in labels.items()
            if name in snapshot.nodes and snapshot.nodes[name].labels.get(key) != value
        }
        return frozenset(
            workload for workload, one in (self._steered or {}).items() if (one.to.label, one.to.value) in waiting
        )

    def look(self, snapshot: ClusterSnapshot, plan: Plan | None, warmth: Warmth) -> tuple[Intent, ...]:
        """What is to be written; nothing before the first plan for all, which tells what is stale."""
        self.wakes_at = None
        if self.obstacle is SteerState.SWITCHED_OFF:
            return ()
        if plan is not None and (plan.only is None or self._steered is not None):
            self._steered = steering.after(self._steered or {}, plan)
        if self._steered is None:
            return ()
        return (*self._labels(self._steered, snapshot, warmth), *self._say(self._steered, snapshot.taken_at))

    def _labels(
        self, steered: Mapping[WorkloadKey, Steered], snapshot: ClusterSnapshot, warmth: Warmth
    ) -> list[Intent]:
        self._see(snapshot.nodes)
        if not steered and not self._wanted and not self._carrying:
            return []
        self._wanted = steering.labels_wanted(steered.values(), snapshot, warmth, self._carrying)
        now = snapshot.taken_at
        asked, intents = {}, []
        for change in steering.label_changes(self._wanted, snapshot, self._carrying):
            before = self._asked.get(change.name)
            if before is not None and before[0] == change.labels and before[1] <= now < before[1] + AGAIN_SECONDS:
                asked[change.name] = before
            else:
                asked[change.name] = (change.labels, now)
                intents.append(change)
                log.info("node labelled", node=change.name, labels=dict(change.labels))
            self._wake(asked[change.name][1] + AGAIN_SECONDS)
        self._asked = asked
        return list(intents)

    def _see(self, nodes: Mapping[str, Node]) -> None:
        """Note which nodes carry labels of ours: only those that changed are looked at."""
        if nodes is self._nodes:
            return
        for name, node in nodes.items():
            if self._nodes.get(name) is not node:
                (self._carrying.add if our_labels(node.labels) else self._carrying.discard)(name)
        self._carrying &= nodes.keys()
        self._nodes = nodes

    def _say(self, steered: Mapping[WorkloadKey, Steered], now: float) -> list[Intent]:
        """The entries, if they are others than before, are to be renewed, or may not have been written."""
        wanted: _Entries = frozenset((key, one.to.label, one.to.value) for key, one in steered.items())
        if wanted != self._entries:
            self._entries, self._until, self._say_at = wanted, now + ENTRY_SECONDS, now + AGAIN_SECONDS
        elif self._say_at is None or now < self._say_at:
            if self._say_at is not None:
                self._wake(self._say_at)
            return []
        else:
            self._say_at = now + REPEAT_SECONDS if wanted else None
            if now >= self._until - RENEW_SECONDS:
                self._until = now + ENTRY_SECONDS
        if self._say_at is not None:
            self._wake(self._say_at)
        return [steering.entries(steered.values(), self._namespace, self._until)]

    def _wake(self, at: float) -> None:
        self.wakes_at = at if self.wakes_at is None else min(self.wakes_at, at)
