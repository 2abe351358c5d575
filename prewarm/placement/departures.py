"""Which old pods have gone by when? One possible course in each replay."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from math import frexp, pi, sqrt

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from prewarm.model.plans import Batch, Demand
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints, Mask
from prewarm.placement.cluster_arrays import ClusterArrays

EARLIEST_SECONDS, LATEST_SECONDS = -2.0, 3.0
"""How much earlier or later than expected an old pod's room is free: pods take from nothing to their grace period to
stop, and new ones become ready together or one by one. Nobody knows, so each replay draws its own."""

QUICKEST_PACE, SLOWEST_PACE = 0.0, 2.0
"""How much slower than expected new pods follow one another: of pods that start together nobody knows how far apart
they become ready, and each that does lets one old pod go."""


_DISORDER = 0.5
"""Standard deviation, as a share of the pods, of how far Go's sort puts a pod from its rank by uid, where as many pairs
are without an order as with one; for other shares t of such pairs it goes as t / (1 - t). Fitted to sort.Sort with 12
to 200 pods in 1 to 20 seconds, sorted anew from any order each time one or some of them go, as the ReplicaSet's
controller does: of 40 pods from two seconds 82 % of the first ten are of the lower half by uid, from three 94 %."""
_LOGISTIC_DEVIATION = pi / sqrt(3)

_NEVER = np.iinfo(np.int64).max
"""Place in the order of a pod that does not go, or has gone."""

_Kind = tuple[int, tuple[tuple[str, str], ...], bool]


class _Rest(Struct, frozen=True):
    """A moment at which the rollout stands still."""

    at: float
    gone: int
    """How many old pods have gone by then, in all."""


class Departed(Struct, frozen=True):
    """Equal pods that leave in several replays, each from its own node."""

    pod: Pod
    """One of them; they share shape, labels, and whether they were terminating already."""
    rows: Ints
    columns: Ints


class Departures:
    """Old pods of the demand's workload, leaving in the order in which scaling down deletes them.

    That order changes as the rollout goes: pods that share a node with more pods of the same Deployment go first
    (ActivePodsWithRanks, pkg/controller/controller_utils.go), so a new pod drives the old one from its node. Not so
    for those that go at once: they are chosen within milliseconds, before the first new pods have a node. Pods that
    were created and became ready in the same seconds have no order there, which leaves less of that of the others, too;
    each replay draws one.
    """

    def __init__(
        self,
        demand: Demand,
        snapshot: ClusterSnapshot,
        cluster: ClusterArrays,
        random: np.random.Generator,
        rows: int,
        most: Sequence[int] = (),
    ) -> None:
        """`rows` are drawn; they come once for each of `most`, how many of the demand's leaving pods may go in them."""
        most = most or (len(demand.leaving),)
        copies = len(most)
        self._pods = [snapshot.pods[key] for key in demand.leaving if key in snapshot.pods]
        told = sum(pod.deleted_at is not None for pod in self._pods)
        self._known = len(self._pods) if demand.leaves_in_order else told
        self._columns: Ints = np.array([cluster.column.get(pod.node_name, -1) for pod in self._pods], dtype=np.int64)
        tiers = range(len(self._pods)) if demand.leaves_in_order else map(_tier, self._pods)
        self._tiers: Ints = np.array([*tiers], dtype=np.int64)
        may_go = [sum(key in snapshot.pods for key in demand.leaving[:number]) for number in most]
        self._most: Ints = np.repeat(np.array(may_go, dtype=np.int64), rows)
        self._stays: Mask = np.arange(len(self._pods)) >= self._most[:, np.newaxis]
        self._gone: Mask = np.zeros(self._stays.shape, dtype=np.bool_)
        self._crowd = np.repeat(_siblings(demand, snapshot, cluster)[np.newaxis], len(self._most), axis=0)
        self._began = demand.batches[0].needed_at if demand.batches else snapshot.taken_at
        siblings = self._crowd[0][self._columns]
        self._before: Ints = np.repeat(siblings[np.newaxis], len(self._most), axis=0)
        """Crowds as they were when pods began to go at once."""
        self._at_once = _first_at_once(demand)
        """Of the first that go, how many."""
        self._earlier = 0 if self._at_once == demand.leaving_first else demand.leaving_first
        """How many of them were told before."""
        self._nodes: list[int] = [
            -1 if pod.finished else column for pod, column in zip(self._pods, self._columns.tolist(), strict=True)
        ]
        """Column of the room that each frees; -1: none."""
        self._kinds: list[_Kind] = [
            (id(pod.shape), tuple(sorted(pod.labels.items())), pod.deleted_at is None) for pod in self._pods
        ]
        self._first = demand.leaving_first
        self._ends = _expected_ends(demand)
        self._said = any(batch.leaving or batch.after_rest for batch in demand.batches)
        self._rests = tuple(_rests(demand))
        self._pace = np.tile(random.uniform(QUICKEST_PACE, SLOWEST_PACE, rows), copies)
        self._lag = np.tile(random.uniform(EARLIEST_SECONDS, LATEST_SECONDS, rows), copies)
        if demand.leaves_in_order:
            # Its successor is created once a pod has ended, never before.
            self._pace, self._lag = np.ones_like(self._pace), np.zeros_like(self._lag)
        # Last, and pod by pod: fewer pods draw the same.
        luck = random.random((len(self._pods), rows)).T
        positions = _drawn_positions(self._pods, self._tiers, siblings, self._began, luck)
        self._positions: Ints = np.tile(positions, (copies, 1))
        stops = random.spawn(1)[0].random((len(self._pods), rows)).T
        self._stops = np.tile(stops, (copies, 1))
        """Of those that are told at once, who ends first: the least."""

    def expected(self, needed_at: float, before: int) -> Ints:
        """How many have gone when a batch comes; where batches do not say, one per pod that came `before`."""
        if not self._said:
            return np.full(len(self._lag), self._first + before, dtype=np.int64)
        past = bisect_right(self._rests, needed_at, key=lambda rest: rest.at)
        rest = self._rests[past - 1] if past else _Rest(self._began, self._first)
        if past and needed_at == rest.at:
            # What comes with this batch lets more of them go, which end after it has come.
            return np.full(len(self._lag), rest.gone, dtype=np.int64)
        at = rest.at + (needed_at - rest.at) * self._pace - self._lag
        ended: Ints = np.searchsorted(self._ends, at, side="right").astype(np.int64)
        most = self._rests[past].gone if past < len(self._rests) else len(self._pods)
        return np.clip(ended, rest.gone, max(rest.gone, most))

    def known(self, counted: int) -> int:
        """Of those that go first, how many are known: those told to, or all, in a known order or once all `counted`."""
        return len(self._pods) if counted >= len(self._pods) else self._known

    def begin(self, batch: Batch) -> None:
        """A batch comes; after a rest those that go with it are chosen as pods are now, before its own have nodes."""
        if batch.after_rest:
            past = bisect_right(self._rests, batch.needed_at, key=lambda rest: rest.at)
            self._before = self._crowd[:, self._columns]
            self._earlier = self._rests[past - 1].gone
            self._at_once = self._earlier + (batch.at_once or 0)

    def landed(self, rows: Ints, columns: Ints) -> None:
        """A pod of the same Deployment has come to these cells: old ones there go earlier."""
        self._crowd.reshape(-1)[rows * self._crowd.shape[1] + columns] += 1

    def leave(self, numbers: Ints) -> Iterator[Departed]:
        """Let pods go until as many have gone in each replay as `numbers` says."""
        missing = np.minimum(numbers, self._most) - self._gone.sum(axis=1)
        while (missing > 0).any():
            waiting: Ints = np.flatnonzero(missing > 0)
            rows, chosen = self._next(waiting, missing[waiting])
            self._gone[rows, chosen] = True
            missing -= np.bincount(rows, minlength=len(missing))
            yield from self._departed(rows, chosen)

    @property
    def gone(self) -> Ints:
        """How many have gone, by replay."""
        gone: Ints = self._gone.sum(axis=1, dtype=np.int64)
        return gone

    @property
    def told(self) -> int:
        """How many go before new pods decide about the order."""
        return self._at_once

    def _next(self, rows: Ints, wanted: Ints) -> tuple[Ints, Ints]:
        """The pods that go next in some replays, as pairs of replay and pod.

        By tier, from crowded nodes first, then as drawn. As many as are wanted, unless what counts as crowded changes
        in between, after those that go at once.
        """
        count = len(self._pods)
        gone = self._gone[rows].sum(axis=1)
        at_once = gone < self._at_once
        numbers = np.where(at_once, np.minimum(wanted, self._at_once - gone), wanted)
        crowd = np.where(at_once[:, np.newaxis], self._before[rows], self._crowd[rows[:, np.newaxis], self._columns])
        crowd[:, self._columns < 0] = 0
        highest = int(crowd.max(initial=0)) + 1
        order = (self._tiers * highest + highest - 1 - crowd) * count + self._positions[rows]
        order[self._gone[rows] | self._stays[rows]] = _NEVER
        if at_once.any():
            self._let_end(order, rows, at_once, self._at_once - gone, numbers)
        if (numbers == 1).all():
            return rows, order.argmin(axis=1)
        return np.repeat(rows, numbers), order.argsort(axis=1)[np.arange(count) < numbers[:, np.newaxis]]

    def _let_end(self, order: Ints, rows: Ints, at_once: Mask, told: Ints, numbers: Ints) -> None:
        """Where fewer end now than are still to, of those told at once, those that stop quickest go first in `order`.

        By entry of `rows`: `at_once`, whether it is their turn; `told`, how many are left; `numbers`, how many go.
        """
        some = np.flatnonzero(at_once & (numbers < told) & (told <= self._at_once - self._earlier))
        if some.size:
            ranks = order[some].argsort(axis=1).argsort(axis=1)
            stops = self._stops[rows[some]].argsort(axis=1).argsort(axis=1) - len(self._pods)
            may_go = (ranks < told[some][:, np.newaxis]) & (order[some] < _NEVER)
            order[some] = np.where(may_go, stops, order[some])

    def _departed(self, rows: Ints, chosen: Ints) -> Iterator[Departed]:
        groups: dict[tuple[int, _Kind], list[int]] = {}
        turns: dict[tuple[int, int], int] = {}
        for position, (row, index) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
            column = self._nodes[index]
            if column >= 0:
                # Two pods of one node go one after the other: the cells of one group are all different.
                turn = turns[row, column] = turns.get((row, column), -1) + 1
                groups.setdefault((turn, self._kinds[index]), []).append(position)
        for positions in groups.values():
            indices = chosen[positions]
            yield Departed(self._pods[indices[0]], rows[positions], self._columns[indices])


def _first_at_once(demand: Demand) -> int:
    """How many go before new pods decide about the order."""
    told = demand.batches[0].at_once if demand.batches else None
    if told is not None:
        return demand.leaving_first + told
    return demand.leaving_first or next((batch.leaving for batch in demand.batches if batch.leaving), 0)


def _rests(demand: Demand) -> Iterator[_Rest]:
    gone = 0
    for batch in demand.batches:
        gone += batch.leaving
        if batch.after_rest:
            yield _Rest(batch.needed_at, gone)


def _expected_ends(demand: Demand) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When each leaving pod has ended: those counted before a batch, evenly since the batch before it.

    Each new pod lets an old one go in the end, so beyond the last batch they go on as quickly as pods came.
    """
    ends: list[float] = [-np.inf] * demand.leaving_first
    counted = 0
    for index, batch in enumerate(demand.batches):
        fresh = max(0, counted + batch.leaving - len(ends))
        counted += batch.leaving
        since = demand.batches[index - 1].needed_at if index else batch.needed_at
        ends += np.linspace(since, batch.needed_at, fresh + 1)[1:].tolist()
    if demand.batches:
        began, last = demand.batches[0].needed_at, demand.batches[-1].needed_at
        further = min(len(demand.leaving), demand.leaving_first + demand.pods) - len(ends)
        ends += np.linspace(last, last + (last - began), max(0, further) + 1)[1:].tolist()
    return np.array(ends, dtype=np.float64)


def _tier(pod: Pod) -> int:
    """What goes before the count of pods on the node: terminating, then not ready, then ready pods."""
    if pod.deleted_at is not None:
        return 0
    return 1 if pod.ready_at is None else 2


def _siblings(demand: Demand, snapshot: ClusterSnapshot, cluster: ClusterArrays) -> Ints:
    """Pods of the demand's Deployment per node, terminating ones left out."""
    counts = np.zeros(cluster.count, dtype=np.int64)
    for replica_set in snapshot.replica_sets_by_owner.get(demand.workload_uid, {}).values():
        for pod in snapshot.pods_by_owner.get(replica_set.uid, {}).values():
            column = cluster.column.get(pod.node_name)
            if column is not None and pod.deleted_at is None and not pod.finished:
                counts[column] += 1
    return counts


def _drawn_positions(pods: list[Pod], tiers: Ints, crowd: Ints, now: float, luck: NDArray[np.float64]) -> Ints:
    """The given order in each replay, as far as the controller's sort keeps to it; `luck` is drawn for each pod.

    Pods of one magnitude of age are ordered by uid, but those that were created and became ready in the same seconds
    are not ordered at all. With such pairs the comparison is not transitive: the more of them, the less is left of the
    order of uids in the whole class (see `_DISORDER`).
    """
    positions: Ints = np.repeat(np.arange(len(pods))[np.newaxis], len(luck), axis=0)
    classes: dict[tuple[int, int, int], list[int]] = {}
    for index, pod in enumerate(pods):
        since = pod.created_at if pod.ready_at is None else pod.ready_at
        age = frexp(max(0.0, now - since) * 1e9)[1]
        classes.setdefault((int(tiers[index]), int(crowd[index]), age), []).append(index)
    for indices in classes.values():
        alike = Counter((pods[index].ready_at, pods[index].created_at) for index in indices)
        tied = sum(number * (number - 1) for number in alike.values()) / max(1, len(indices) * (len(indices) - 1))
        if tied:
            drawn = luck[:, indices]
            noise = np.log(np.maximum(drawn, 1e-12) / (1 - drawn)) / _LOGISTIC_DEVIATION
            given = np.arange(len(indices)) / len(indices)
            ranks = ((1 - tied) * given + _DISORDER * tied * noise).argsort(axis=1).argsort(axis=1)
            positions[:, indices] = np.array(indices)[ranks]
    return positions
