"""Which nodes' records wait while many pulls are under way?

A record is one write for each node and finished pod, and lets a deletion follow. While hundreds of pods are created and
report, these writes take the API server's time from what people wait for. A finished pod is evidence as long as it
stands, so that nothing is lost by writing later.
"""

from msgspec import Struct, field

from prewarm.model.image_caches import DeletionPolicy
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.outcome import Reading
from prewarm.puller.settings import PullerSettings
from prewarm.puller.work import Work

RECORD_SECONDS = 45.0
"""A record waits no longer for the cluster, however busy that stays."""
LATEST_SECONDS = 55.0
"""Nor longer for its turn: less than accounting takes up late records for (60 s)."""
BUSY_SHARE = 0.1
"""Once it waits, it does until so much of the number is left with which waiting begins."""
RECORDS_AT_ONCE, SHARE_AT_ONCE = 50, 0.2
"""Records that have waited and are made out in one look, as a number or, of very many, as a share: those of a thousand
nodes took a quarter of a second, for which the last pulls were not told."""
RECORDS_MOST = 2000
"""Records that wait at once: their finished pods stand, and kube-controller-manager deletes the oldest beyond a number
of its own (--terminated-pod-gc-threshold, 12,500)."""


class Deferral(Struct):
    """Kept from one reconcile to the next; losing it lets a record wait anew, since its pods still stand."""

    waiting: frozenset[str] = frozenset()
    """Nodes whose record waits."""
    wake_at: float | None = None
    """When the first of them is due at the latest."""
    _busy: bool = False
    _since: dict[tuple[str, bool], float] = field(default_factory=dict)
    """By pod uid and whether it is done, since when it has been seen so."""
    _listed_since: dict[str, float] = field(default_factory=dict)
    """By node that changed or waits, since when."""
    _began: dict[str, float] = field(default_factory=dict)
    """By node whose record waits, since when."""

    def due(
        self, nodes: frozenset[str], snapshot: ClusterSnapshot, work: Work, settings: PullerSettings
    ) -> frozenset[str]:
        """Of the nodes that changed, and those that wait, the ones whose record is to be written now."""
        now = snapshot.taken_at
        candidates = (nodes | self.waiting) & snapshot.nodes.keys()
        before, self._since = self._since, {}
        listed_before, self._listed_since = self._listed_since, {}
        until: dict[str, float] = {}
        self._busy = work.total > settings.busy_pulls * (BUSY_SHARE if self._busy else 1.0)
        if self._busy:
            keys = [(reading.pod.uid, reading.settled) for reading in work.readings]
            self._since = {key: before.get(key, now) for key in keys}
            self._listed_since = {name: listed_before.get(name, now) for name in candidates}
            until = {
                name: since + RECORD_SECONDS
                for name in candidates
                if (since := self._waits_since(name, snapshot, work)) <= now < since + RECORD_SECONDS
            }
        # Those that are due last are the ones to wait; a clock that was set back ends the wait.
        chosen = sorted(until, key=lambda name: (-until[name], name))[:RECORDS_MOST]
        next_time = self._in_turn((self.waiting & candidates) - frozenset(chosen), snapshot, work)
        chosen = chosen[: max(0, RECORDS_MOST - len(next_time))]
        self.waiting = frozenset(chosen).union(next_time)
        began = self._began
        self._began = {name: until[name] - RECORD_SECONDS for name in chosen}
        self._began |= {name: began.get(name, now) for name in next_time}
        self.wake_at = now if next_time else min((until[name] for name in chosen), default=None)
        return candidates - self.waiting

    def _in_turn(self, waited: frozenset[str], snapshot: ClusterSnapshot, work: Work) -> list[str]:
        """Of nodes that have waited, those whose turn comes later: the longest wait ends first."""
        now = snapshot.taken_at
        patient = [name for name in waited if self._is_patient_on(name, snapshot, work)]
        patient.sort(key=lambda name: (self._began.get(name, now), name))
        later = patient[max(RECORDS_AT_ONCE, int(SHARE_AT_ONCE * len(patient))) :]
        return [
            name for name in later if self._began.get(name, now) <= now < self._began.get(name, now) + LATEST_SECONDS
        ]

    @staticmethod
    def _is_patient_on(node: str, snapshot: ClusterSnapshot, work: Work) -> bool:
        """Whether none of a node's pods has anything to tell that is not to wait."""
        return all(_is_patient(reading, snapshot, work) for reading in work.readings_by_node.get(node, ()))

    def _waits_since(self, node: str, snapshot: ClusterSnapshot, work: Work) -> float:
        """Since when the first of the pods, or the node without any, waits; -inf if one is not to wait."""
        readings = work.readings_by_node.get(node)
        # Of a pod under way there is nothing to tell yet; reading its node at every step takes time, too. Without a pod
        # it is the node's own list that says something new, such as an image's size, and goes on saying it.
        if not readings:
            return self._listed_since[node]
        first = float("inf")
        for reading in readings:
            if not _is_patient(reading, snapshot, work):
                return float("-inf")
            first = min(first, self._since[reading.pod.uid, reading.settled])
        return first


def _is_patient(reading: Reading, snapshot: ClusterSnapshot, work: Work) -> bool:
    """Whether a pod may go on standing, and nothing but its success is to be told.

    Not one that leaves, whose cache is gone (its pods go with it) or whose cache must know what to purge afterwards;
    nor one that takes from a quota.
    """
    pod = reading.pod
    cache = work.caches.get(pod.owner.uid) if pod.owner is not None else None
    if pod.deleted_at is not None or pod.namespace in snapshot.quotas:
        return False
    if cache is None or cache.deleted_at is not None or cache.deletion_policy is DeletionPolicy.PURGE:
        return False
    return not reading.failed
