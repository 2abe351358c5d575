"""Plays a demand through the scheduler many times at once: each row is one possible course of events."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from msgspec import Struct

from prewarm.model.plans import Batch, Demand, RejectReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints, Mask, Scores
from prewarm.placement.attachments import Attachments
from prewarm.placement.cluster_arrays import ClusterArrays, Usage
from prewarm.placement.competitors import competitors
from prewarm.placement.departures import Departures
from prewarm.placement.image_locality import ExpectedImage
from prewarm.placement.incoming import IncomingPod, PodView, of_demand
from prewarm.placement.node_affinity import asked
from prewarm.placement.pauses import between_steps
from prewarm.placement.preemption import Gone
from prewarm.placement.reach import rejected_elsewhere
from prewarm.placement.rivals import TOGETHER_SECONDS, due
from prewarm.placement.sampling import NodeSampling
from prewarm.placement.scheduler import Effect, PodScheduler
from prewarm.placement.volumes import Reach, reach

IMAGE_REPORT_SECONDS = 20.0
"""From a pod's landing until its node lists the image in status.images: 2 to 38 s were measured on real kubelets."""


LIKING = np.float32(5)
"""Points (of some 1,300) for a node that is liked: less than what one pod more on a node usually costs."""
KEEPING = np.float32(200)
"""Points for a node that is to be kept, until the first pod is there: as many as its label will give it."""


class Choice(Struct, frozen=True):
    """A free hand in choosing nodes, where pods can be steered."""

    among: frozenset[str]
    """Nodes that may be chosen."""
    liked: frozenset[str]
    """Those that win over others that are hardly better: what is pulled there already need not be pulled elsewhere."""
    kept: frozenset[str] = frozenset()
    """Those that are given up only for much better ones: they were chosen before, and each choice has its cost. Pods of
    the first batches, which are not steered, leave them alone where they can."""
    room_first: bool = False
    """Whether pods take what room there is before any that only old pods leave of which it is not told yet who goes."""


class Outcome(Struct, frozen=True):
    """Pods of the demand per replay (row) and node (column), pods without a node per replay, and who rejected."""

    counts: Ints
    unplaced: Ints
    rejected: Mapping[int, RejectReason]
    """By column, at the start."""
    elsewhere: Mapping[RejectReason, int] = {}
    """Nodes without a column, by who rejected them."""
    first: Ints | None = None
    """`counts` after the first batches; None if that was not asked for, or some of their pods waited on."""
    short: int = 0
    """Pods that found no room, in most replays, until more old pods had left than a choice of `room_first` lets go."""
    in_room: Ints | None = None
    """`counts` before that, for such a choice."""


class _Landing(Struct, frozen=True):
    pod: PodView
    rows: Ints
    columns: Ints
    sign: int
    counted_by_spread: bool = True


class _Waiting(Struct, frozen=True):
    """Pods without a node yet, per replay, and where volumes of their own let them go (None: anywhere)."""

    pods: Ints
    within: Mask | None = None
    claims: tuple[str, ...] = ()
    """Of these pods alone."""


@lru_cache(maxsize=4)
def _ties(seed: int, rows: int, nodes: int) -> Scores:
    """Who wins among equals, per replay and node of the whole cluster: values in [1, 2), not to be written to."""
    drawn = np.random.default_rng((seed, 0)).random((rows, nodes), dtype=np.float32)
    drawn *= np.float32(0.99)  # never rounded up to the next whole score
    drawn += 1
    drawn.setflags(write=False)
    return drawn


class _Rival:
    """Another workload whose pods come meanwhile."""

    def __init__(self, demand: Demand, scheduler: PodScheduler, departures: Departures, rows: int) -> None:
        self.demand = demand
        self.scheduler = scheduler
        self.departures = departures
        self.waiting: Ints = np.zeros(rows, dtype=np.int64)
        self.delay: Ints = np.zeros(rows, dtype=np.int64)
        """Pods of ours that come before its next one."""
        self.played = 0

    def coming(self, now: float) -> Iterator[Batch]:
        """The batches that come by a moment; each waits for nodes once the next one is asked for."""
        batches = self.demand.batches
        for batch in batches[self.played : due(batches, self.played, now)]:
            yield batch
            self.played += 1
            self.waiting += batch.pods
            self.departures.begin(batch)

    def gone(self, now: float) -> Ints:
        """How many old pods have gone by a moment."""
        before = sum(batch.pods for batch in self.demand.batches[: max(0, self.played - 1)])
        return self.departures.expected(now, before)


class Replays:
    """The state that all replays share, and the moves in it."""

    def __init__(
        self,
        demand: Demand,
        snapshot: ClusterSnapshot,
        cluster: ClusterArrays,
        *,
        rows: int,
        seed: int,
        expected: Mapping[str, ExpectedImage],
        most_leaving: Sequence[int] = (),
        choice: Choice | None = None,
        rivals: Sequence[Demand] = (),
    ) -> None:
        """`rows` replays for each of `most_leaving`, how many of the old pods may go; by default, all may.

        All sets draw the same. `choice` restricts where the demand's pods may go, and what they like; `rivals` are
        pods of other workloads that come meanwhile.
        """
        copies = max(1, len(most_leaving))
        self._sets = [slice(number * rows, (number + 1) * rows) for number in range(copies)]
        # A stream for each purpose: leaving out what does not matter leaves the other draws as they are.
        orders, departures, self._luck = (np.random.default_rng((seed, purpose)) for purpose in range(1, 4))
        self._demand = demand
        self._snapshot = snapshot
        self._cluster = cluster
        self._expected = expected
        self._rows: Ints = np.arange(copies * rows, dtype=np.int64)
        self._usage = Usage(snapshot, cluster, copies * rows)
        self._sampling = NodeSampling(cluster, rows, orders, copies, asked=asked(demand.template.shape, cluster))
        self._ties = np.tile(_ties(seed, rows, cluster.whole.count)[:, cluster.columns], (copies, 1))
        self._within: Mask | None = None
        self._likings = self._ties
        self._kept: Mask | None = None
        self._room_first = choice is not None and choice.room_first
        if choice is not None:
            self._within = cluster.mask(lambda node: node.name in choice.among)
            liked = cluster.mask(lambda node: node.name in choice.liked)
            self._likings = self._ties + np.where(liked, LIKING, np.float32(0))
            self._kept = cluster.mask(lambda node: node.name in choice.kept) if choice.kept else None
        self._steered = False
        """Whether the pods that come now are steered to what is kept."""
        self._history: list[_Landing] = []
        self._leaving = frozenset(key for one in (demand, *rivals) for key in one.leaving)
        self._gone = Gone(len(self._rows))
        self._attachments = Attachments(snapshot, cluster, len(self._rows)) if snapshot.attach_limits else None
        self._scheduler = self._scheduler_of(of_demand(demand, snapshot))
        self._departures = Departures(demand, snapshot, cluster, departures, rows, most_leaving)
        owned = snapshot.replica_sets_by_owner.get(demand.workload_uid, {})
        self._revisions = frozenset(replica_set.uid for replica_set in owned.values())
        self._watching = [self._scheduler]
        self._wait = between_steps()
        self._others = rivals
        self._others_draw = [np.random.default_rng((seed, 4 + number)) for number in range(len(rivals))]
        self._rivals: list[_Rival] = []

    def run(self, first: int = 0) -> list[Outcome]:
        """Competitors first, then the demand batch by batch, old pods leaving in between; an outcome for each set.

        Args:
            first: batches after which the counts are kept too; later ones are steered to what a `choice` keeps.
        """
        demand, rows = self._demand, self._rows
        counts = np.zeros((len(rows), self._cluster.count), dtype=np.int64)
        waiting = [_Waiting(np.zeros(len(rows), dtype=np.int64))]
        self._leave(self._departures, np.full(len(rows), demand.leaving_first))
        own = self._own_volumes()
        attachable = self._attachable_by_any()
        rejected = [self._scheduler.rejections(rows.start, own, attachable) for rows in self._sets]
        self._place_competitors()
        self._meet_rivals()
        landed: list[tuple[float, Ints, Ints]] = []
        before = counted = 0
        kept: list[Ints | None] = [None] * len(self._sets)
        for number, batch in enumerate(demand.batches, 1):
            self._play_rivals(batch)
            counted += batch.leaving
            self._leave(self._departures, self._gone_by(batch, before, counted, steered=number > first))
            self._departures.begin(batch)
            before += batch.pods
            landed = self._report_images(landed, batch.needed_at)
            self._scheduler.prefer(batch.prefers)
            self._steered = number > first
            self._add(batch, waiting)
            landed += [(batch.needed_at, *cells) for cells in self._place_all(waiting, counts)]
            if number == first:
                stuck = np.sum([some.pods for some in waiting], axis=0)
                kept = [None if stuck[one].any() else counts[one].copy() for one in self._sets]
        short = np.sum([some.pods for some in waiting], axis=0)
        in_room = counts.copy() if self._room_first else counts
        self._place_stuck(waiting, counts)
        unplaced = np.sum([some.pods for some in waiting], axis=0)
        elsewhere = rejected_elsewhere(self._scheduler.pod, self._cluster)
        return [
            Outcome(counts[one], unplaced[one], why, elsewhere, at_first, round(np.median(short[one])), in_room[one])
            for one, why, at_first in zip(self._sets, rejected, kept, strict=True)
        ]

    def _gone_by(self, batch: Batch, before: int, counted: int, *, steered: bool) -> Ints:
        """How many old pods have gone when a batch comes; `before` and `counted`: pods that came and went before."""
        gone = self._departures.expected(batch.needed_at, before)
        if steered and self._room_first:
            return np.minimum(gone, self._departures.known(counted))
        return gone

    def _scheduler_of(self, pod: IncomingPod) -> PodScheduler:
        return PodScheduler(pod, self._snapshot, self._cluster, self._usage, self._expected, self._leaving, self._gone)

    def _late_scheduler_of(self, pod: IncomingPod) -> PodScheduler:
        """One that knows what has happened up to now."""
        scheduler = self._scheduler_of(pod)
        effects: dict[int, Effect] = {}
        for past in self._history:
            effect = effects.get(id(past.pod))
            if effect is None:
                effect = effects[id(past.pod)] = scheduler.effect(past.pod)
            scheduler.observe(effect, past.rows, past.columns, past.sign, spread=past.counted_by_spread)
        return scheduler

    def _meet_rivals(self) -> None:
        """From now on rivals follow what happens: their pods come after those that wait already."""
        snapshot, rows, copies = self._snapshot, len(self._rows), len(self._sets)
        for other, random in zip(self._others, self._others_draw, strict=True):
            most = (len(other.leaving),) * copies
            departures = Departures(other, snapshot, self._cluster, random, rows // copies, most)
            scheduler = self._late_scheduler_of(of_demand(other, snapshot))
            self._rivals.append(_Rival(other, scheduler, departures, rows))
            self._watching.append(scheduler)

    def _own_volumes(self) -> Reach | None:
        """Where the volumes of any pod of the demand can be used; None if some pod has none of its own."""
        found: Reach | None = None
        for batch in self._demand.batches:
            own = reach(self._demand.workload.namespace, batch.claims, self._snapshot, self._cluster)
            if own is None:
                return None
            found = own if found is None else found.with_either(own)
        return found

    def _add(self, batch: Batch, waiting: list[_Waiting]) -> None:
        """Let a batch's pods wait: with those before, or by themselves if volumes of their own restrict them."""
        own = reach(self._demand.workload.namespace, batch.claims, self._snapshot, self._cluster)
        if own is None:
            waiting[0].pods[:] += batch.pods
        else:
            pods = np.full(len(self._rows), batch.pods, dtype=np.int64)
            waiting.append(_Waiting(pods, own.both, batch.claims))

    def _place_all(self, waiting: list[_Waiting], counts: Ints) -> list[tuple[Ints, Ints]]:
        """Place what waits, the first to wait first."""
        cells = []
        for some in waiting:
            if some.pods.any():
                within = some.within
                if self._within is not None:
                    within = self._within if within is None else within & self._within
                cells += self._place(self._scheduler, some.pods, counts, within, some.claims)
        return cells

    def _place_stuck(self, waiting: list[_Waiting], counts: Ints) -> None:
        """Pods that found no node take the first room that an old pod leaves, whichever others are about to.

        The scheduler tries them again whenever a pod is gone. No more go than were told to, or than pods have come.
        """
        departures = self._departures
        while True:
            stuck = np.sum([some.pods for some in waiting], axis=0)
            gone = departures.gone
            most = np.maximum(departures.told, self._demand.leaving_first + counts.sum(axis=1))
            self._leave(departures, np.minimum(gone + (stuck > 0), np.maximum(most, gone)))
            if not stuck.any() or (departures.gone == gone).all():
                return
            self._place_all(waiting, counts)

    def _place(
        self,
        scheduler: PodScheduler,
        waiting: Ints,
        counts: Ints | None = None,
        within: Mask | None = None,
        claims: tuple[str, ...] = (),
    ) -> list[tuple[Ints, Ints]]:
        """Place what waits, one pod per replay at a time; counts `waiting` down to what finds no node."""
        claims = (*scheduler.pod.shape.volume_claims, *claims)
        watching = self._watching if scheduler in self._watching else [*self._watching, scheduler]
        effects = [(one, one.effect(scheduler.pod)) for one in watching]
        stuck = waiting <= 0
        cells = []
        while not stuck.all():
            self._wait()
            here = self._attachable(scheduler.pod.namespace, claims, within)
            likings = self._ties if scheduler is not self._scheduler else self._liked(counts)
            columns, placed = scheduler.choose(self._sampling, likings, ~stuck, here)
            self._make_room(scheduler, columns, placed, ~stuck & ~placed, here)
            rows, columns = self._rows[placed], columns[placed]
            self._occupy(scheduler.pod, claims, rows, columns, 1)
            for one, effect in effects:
                one.observe(effect, rows, columns, 1)
                one.resources.refresh(rows, columns)
            if len(watching) > len(self._watching):
                self._history.append(_Landing(scheduler.pod, rows, columns, 1))
            if counts is not None:
                counts.reshape(-1)[rows * counts.shape[1] + columns] += 1
            if counts is not None or scheduler.pod.owner_uid in self._revisions:
                self._departures.landed(rows, columns)
            cells.append((rows, columns))
            waiting -= placed
            stuck = ~placed | (waiting <= 0)
            if counts is not None:
                self._take_turns()
        return cells

    def _play_rivals(self, batch: Batch) -> None:
        """Rivals' pods that came before a batch are placed; those of about its time wait for their turn.

        Nobody knows who begins: in each replay one side has some pods ahead of the other.
        """
        now = batch.needed_at
        for rival in self._rivals:
            self._advance(rival, now - TOGETHER_SECONDS)
            self._place_rival(rival, rival.waiting)
            self._advance(rival, now + TOGETHER_SECONDS)
            if rival.scheduler.pod.shape.priority > self._scheduler.pod.shape.priority:
                self._place_rival(rival, rival.waiting)
            elif rival.scheduler.pod.shape.priority == self._scheduler.pod.shape.priority and rival.waiting.any():
                lead = np.ceil(self._luck.uniform(-batch.pods, rival.waiting)).astype(np.int64)
                rival.delay = np.maximum(-lead, 0)
                first = np.maximum(lead, 0)
                rival.waiting -= first
                self._place_rival(rival, first)
                rival.waiting += first  # what found no node

    def _advance(self, rival: _Rival, now: float) -> None:
        """Let a rival's batches come that are due, and its old pods leave."""
        for batch in rival.coming(now):
            if batch.after_rest:
                # Who goes with it is chosen as pods are then: those before it have come, and old ones left for them.
                self._place_rival(rival, rival.waiting)
                self._leave(rival.departures, rival.gone(batch.needed_at))
        self._leave(rival.departures, rival.gone(now))

    def _take_turns(self) -> None:
        """After each pod of ours comes one of each rival: controllers create theirs at the same time."""
        for rival in self._rivals:
            turn = np.where(rival.delay > 0, 0, np.minimum(rival.waiting, 1))
            rival.delay -= 1
            if turn.any() and rival.scheduler.pod.shape.priority >= self._scheduler.pod.shape.priority:
                rival.waiting -= turn
                self._place_rival(rival, turn)
                rival.waiting += turn  # what found no node

    def _place_rival(self, rival: _Rival, waiting: Ints) -> None:
        for rows, columns in self._place(rival.scheduler, waiting):
            rival.departures.landed(rows, columns)

    def _liked(self, counts: Ints | None) -> Scores:
        """What the demand's next pods like, now that so many of them are on each node.

        Whom nobody steers may land on a node that is to be kept, too: what then replaces it is chosen when it has. By
        half the points, so that pods which a label draws already go where it is.
        """
        if self._kept is None or counts is None:
            return self._likings
        if self._steered:
            return self._likings + np.where(self._kept & (counts == 0), KEEPING, np.float32(0))
        return self._likings + np.where(self._kept, np.float32(0), KEEPING / 2)

    def _attachable(self, namespace: str, claims: tuple[str, ...], within: Mask | None) -> Mask | None:
        """`within` less the nodes that attach no more volumes."""
        if self._attachments is None or not claims:
            return within
        allowed = self._attachments.allowed(self._attachments.volumes(namespace, claims))
        if allowed is None or within is None:
            return within if allowed is None else allowed
        return within & allowed

    def _attachable_by_any(self) -> Mask | None:
        """Nodes that attach the volumes of at least one pod of the demand; None if limits have no say."""
        namespace, common = self._demand.workload.namespace, self._demand.template.shape.volume_claims
        found: Mask | None = None
        for claims in dict.fromkeys(batch.claims for batch in self._demand.batches):
            allowed = self._attachable(namespace, (*common, *claims), None)
            if allowed is None:
                return None
            found = allowed if found is None else found | allowed
        return found

    def _occupy(self, pod: PodView, claims: tuple[str, ...], rows: Ints, columns: Ints, sign: int) -> None:
        """A pod takes (sign 1) or frees (-1) what it needs on these cells."""
        self._usage.add(pod.shape, rows, columns, sign)
        if self._attachments is not None and claims:
            self._attachments.move(self._attachments.volumes(pod.namespace, claims), rows, columns, sign)

    def _place_competitors(self) -> None:
        """Pods that wait already and are not of lower priority: the scheduler's queue has them first."""
        for pod, number in competitors(self._demand, self._snapshot, self._scheduler.pod, self._cluster):
            scheduler = self._late_scheduler_of(pod)
            self._place(scheduler, np.full(len(self._rows), number, dtype=np.int64))

    def _make_room(
        self, scheduler: PodScheduler, columns: Ints, placed: Mask, short: Mask, within: Mask | None
    ) -> None:
        """Where a pod fits nowhere, less important ones go for it: sets its column, and that it is placed."""
        if not short.any():
            return
        for row, column, victims in scheduler.make_room(short, within, self._luck):
            cell = self._rows[row : row + 1], np.array([column], dtype=np.int64)
            for victim in victims:
                self._occupy(victim, victim.shape.volume_claims, *cell, -1)
                spread = victim.deleted_at is None
                for one in {id(one): one for one in (*self._watching, scheduler)}.values():
                    one.observe(one.effect(victim), *cell, -1, spread=spread)
                self._history.append(_Landing(victim, *cell, -1, spread))
            columns[row], placed[row] = column, True

    def _leave(self, departures: Departures, numbers: Ints) -> None:
        """Old pods go, until as many have gone in each replay as `numbers` says."""
        cells = []
        for departed in departures.leave(numbers):
            pod, rows, columns = departed.pod, departed.rows, departed.columns
            self._occupy(pod, pod.shape.volume_claims, rows, columns, -1)
            spread = pod.deleted_at is None
            for one in self._watching:
                one.observe(one.effect(pod), rows, columns, -1, spread=spread)
            self._history.append(_Landing(pod, rows, columns, -1, spread))
            cells.append((rows, columns))
        if cells:
            for one in self._watching:
                one.resources.refresh(*map(np.concatenate, zip(*cells, strict=True)))

    def _report_images(self, landed: list[tuple[float, Ints, Ints]], now: float) -> list[tuple[float, Ints, Ints]]:
        """Nodes where pods landed long enough ago list the images now; gives back the others."""
        ripe = [entry for entry in landed if entry[0] <= now - IMAGE_REPORT_SECONDS]
        if ripe:
            rows, columns = np.concatenate([r for _, r, _ in ripe]), np.concatenate([c for _, _, c in ripe])
            self._scheduler.images_arrive(rows, columns)
        return [entry for entry in landed if entry[0] > now - IMAGE_REPORT_SECONDS]
