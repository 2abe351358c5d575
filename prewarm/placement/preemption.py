"""DefaultPreemption (plugins/defaultpreemption, framework/preemption, 1.36): who makes room where nothing else fits.

Played as if victims were gone at once. Not played: room that only appears because a victim's pod affinity or spread
counts no more, and the nominations of other pods.
"""

from collections.abc import Collection, Iterable, Sequence
from math import inf

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.placement.arrays import Ints, Mask
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.ports import HostPorts
from prewarm.placement.resources import ResourceFit

_LEAST_CANDIDATES, _CANDIDATES_PERCENT = 100, 10
"""DefaultPreemptionArgs: the dry run ends after so many candidates, on a cluster of more nodes."""
_PRIORITY_OFFSET = 2**31
"""Added to each priority before they are summed, so that fewer pods of negative priority are not the worse choice."""


Ranks = NDArray[np.float64]


class Victims(Struct, frozen=True):
    """Pods of one node that would go, and how much one would rather take them than others, the lowest first."""

    members: tuple[int, ...]
    """Positions among the node's possible victims."""
    rank: tuple[float, ...]
    """Budgets violated, highest priority, sum of priorities, number, and negative start of the first of the highest."""


_NONE = Victims((), (inf,) * 5)


class Gone:
    """Pods that were taken away already, by node and replay; all kinds of pods that are placed share it."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._by_column: dict[int, dict[ObjectKey, Mask]] = {}

    def add(self, row: int, column: int, pods: Iterable[Pod]) -> None:
        """They are gone in this replay."""
        column_pods = self._by_column.setdefault(column, {})
        for pod in pods:
            column_pods.setdefault(pod.key, np.zeros(self._rows, dtype=np.bool_))[row] = True

    def concerns(self, column: int) -> bool:
        """Whether any pod of the node is gone in any replay."""
        return column in self._by_column

    def left(self, row: int, column: int, pods: Sequence[Pod]) -> Mask:
        """Which of a node's pods are still there."""
        gone = self._by_column.get(column)
        if gone is None:
            return np.ones(len(pods), dtype=np.bool_)
        return np.array([pod.key not in gone or not gone[pod.key][row] for pod in pods], dtype=np.bool_)


class Preemption:
    """Possible victims of one kind of pod on every node, and which nodes the scheduler would clear, per replay."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        cluster: ClusterArrays,
        resources: ResourceFit,
        ports: HostPorts | None,
        priority: int,
        leaving: Collection[ObjectKey],
        gone: Gone,
    ) -> None:
        self._resources = resources
        self._ports = ports
        self._snapshot = snapshot
        self._pods: dict[int, list[Pod]] = {}
        for column, name in enumerate(cluster.names):
            lower = _possible(snapshot, name, priority, leaving)
            if lower:
                self._pods[column] = lower
        self._gone = gone
        self._amounts: dict[int, Ints] = {}
        self._known: dict[tuple[int, bytes, bytes], Victims] = {}
        self._most = max(_LEAST_CANDIDATES, cluster.whole.count * _CANDIDATES_PERCENT // 100)
        self._ranks: Ranks = np.full((len(_NONE.rank), *resources.fits.shape), inf)
        self._look_at(resources.unlike_the_first() & np.isin(np.arange(cluster.count), list(self._pods)))

    def _look_at(self, apart: Mask) -> None:
        """Rank all nodes: most replays agree on most of them, the others are looked at cell by cell."""
        for column in self._pods:
            alike = ~apart[:, column] if not self._gone.concerns(column) else np.zeros(len(apart), dtype=np.bool_)
            if alike.any():
                first = int(alike.argmax())
                self._ranks[:, alike, column] = np.array(self._victims(first, column).rank)[:, np.newaxis]
            self._update([(int(row), column) for row in np.flatnonzero(~alike)])
        self._resources.changed[:] = False

    def _update(self, cells: Iterable[tuple[int, int]]) -> None:
        for row, column in cells:
            self._ranks[:, row, column] = self._victims(row, column).rank

    def make_room(self, short: Mask, admitted: Mask, random: np.random.Generator) -> list[tuple[int, int, list[Pod]]]:
        """For each replay in `short` the column that is cleared, and of whom; those that nothing helps are left out.

        Args:
            short: replays in which a pod fits nowhere.
            admitted: where it passes all filters that no victim changes.
            random: draws which nodes are looked at, and between equals: the scheduler goes by a map's order.
        """
        if not self._pods:
            return []
        changed = self._resources.changed
        self._update((row, column) for row, column in np.argwhere(changed).tolist() if column in self._pods)
        changed[:] = False
        rows = np.flatnonzero(short)
        ranks = self._ranks[:, rows]
        best = self._best(ranks, admitted[rows] & np.isfinite(ranks[0]), random)
        found = []
        for row, column in zip(rows[best >= 0].tolist(), best[best >= 0].tolist(), strict=True):
            going = [self._pods[column][member] for member in self._victims(row, column).members]
            self._gone.add(row, column, going)
            found.append((row, column, going))
        return found

    def _best(self, ranks: Ranks, candidates: Mask, random: np.random.Generator) -> Ints:
        """The column with the lowest rank in each row, of those that are looked at; -1 where there is none."""
        luck = random.random(candidates.shape)
        if int(candidates.sum(axis=1).max(initial=0)) > self._most:
            order = np.argsort(np.where(candidates, luck, 2.0), axis=1)[:, : self._most]
            looked_at = np.zeros_like(candidates)
            np.put_along_axis(looked_at, order, True, axis=1)
            candidates = candidates & looked_at
        some = candidates.any(axis=1)
        for rank in ranks:
            values = np.where(candidates, rank, inf)
            candidates = candidates & (values == values.min(axis=1, keepdims=True, initial=inf))
        chosen: Ints = np.where(some, np.where(candidates, luck + 1, 0.0).argmax(axis=1), -1)
        return chosen

    def _victims(self, row: int, column: int) -> Victims:
        """The smallest set of a node's pods by the scheduler's way of finding one (SelectVictimsOnNode)."""
        here = self._gone.left(row, column, self._pods[column])
        free, wanted = self._resources.room(row, column)
        if self._ports is not None:
            free, wanted = np.append(free, -self._ports.taken(row, column)), np.append(wanted, 0)
        key = (column, free.tobytes(), here.tobytes())
        if key not in self._known:
            self._known[key] = self._select(column, free - wanted, here)
        return self._known[key]

    def _select(self, column: int, spare: Ints, here: Mask) -> Victims:
        """Who goes, if the pod lacks what is negative in `spare`.

        All go first; then they are let back, those that a budget protects and then the more important ones first.
        """
        amounts = self._taken(column)
        left = spare + amounts[here].sum(axis=0)
        if (left < 0).any() or not here.any():
            return _NONE
        pods = self._pods[column]
        present = np.flatnonzero(here).tolist()
        violating = _violations(self._snapshot, [pods[member] for member in present])
        order = sorted(range(len(present)), key=lambda position: not violating[position])
        going: list[int] = []
        violated = 0
        for position in order:
            remaining = left - amounts[present[position]]
            if (remaining >= 0).all():
                left = remaining
            else:
                going.append(present[position])
                violated += violating[position]
        if not going:
            return _NONE
        return Victims(tuple(going), (float(violated), *_weight(self._snapshot, [pods[member] for member in going])))

    def _taken(self, column: int) -> Ints:
        """What each possible victim gives back, in the order of ResourceFit.room, host ports last."""
        if column not in self._amounts:
            rows = [self._resources.given_back(pod.shape) for pod in self._pods[column]]
            if self._ports is not None:
                rows = [(*row, self._ports.effect(pod)) for row, pod in zip(rows, self._pods[column], strict=True)]
            self._amounts[column] = np.array(rows, dtype=np.int64)
        return self._amounts[column]


def _possible(snapshot: ClusterSnapshot, node: str, priority: int, leaving: Collection[ObjectKey]) -> list[Pod]:
    """Pods of lower priority on a node, the most important first (MoreImportantPod); not those that go anyway."""
    lower = (
        pod
        for key, pod in snapshot.pods_by_node.get(node, {}).items()
        if pod.shape.priority < priority and key not in leaving and key not in snapshot.puller_pods
    )
    return sorted(lower, key=lambda pod: (-pod.shape.priority, _started(snapshot, pod), pod.key))


def _started(snapshot: ClusterSnapshot, pod: Pod) -> float:
    """A pod that its kubelet has not seen starts now (util.GetPodStartTime)."""
    return snapshot.taken_at if pod.started_at is None else pod.started_at


def _violations(snapshot: ClusterSnapshot, pods: Iterable[Pod]) -> list[bool]:
    """Of pods in order of importance, those whose going a budget does not allow if all before them go, too."""
    left = {key: budget.allowed for key, budget in snapshot.disruption_budgets.items()}
    found = []
    for pod in pods:
        violated = False
        for key, budget in snapshot.disruption_budgets.items():
            if budget.protects(pod.namespace, pod.name, pod.labels):
                left[key] -= 1
                violated = violated or left[key] < 0
        found.append(violated)
    return found


def _weight(snapshot: ClusterSnapshot, going: Sequence[Pod]) -> tuple[float, ...]:
    """By what pickOneNodeForPreemption compares nodes after violations, the lowest first."""
    highest = max(pod.shape.priority for pod in going)
    first = min(_started(snapshot, pod) for pod in going if pod.shape.priority == highest)
    total = sum(pod.shape.priority + _PRIORITY_OFFSET for pod in going)
    return (float(highest), float(total), float(len(going)), -first)
