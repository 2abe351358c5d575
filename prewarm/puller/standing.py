"""How does a whole ImageCache stand? The pairs of all its nodes and their sums, kept up to date node by node."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageCacheStatus
from prewarm.model.images import canonical
from prewarm.puller.lifecycle import Course
from prewarm.puller.pairs import Pair, Pairs, PairState
from prewarm.puller.refresh import asks_again
from prewarm.puller.targets import Targets


class Changed(Struct, frozen=True):
    """Nodes that changed since the last look."""

    judged: frozenset[str] = frozenset()
    """On which pairs of caches may stand differently, nodes that are gone included."""
    observed: frozenset[str] = frozenset()
    """Whose record may have to be written."""
    peopled: Mapping[str, frozenset[str]] = {}
    """By namespace, nodes to which pods of it came, which they left, or where they were relabelled."""
    resting: frozenset[str] = frozenset()
    """Whose record is not right yet, was written a moment ago, and would be the same now."""


class Standing:
    """Pairs of one cache by node. Judging one node anew costs microseconds, all of a thousand nodes milliseconds."""

    def __init__(self, cache: ImageCache) -> None:
        self.cache = cache
        self.counts: Counter[PairState] = Counter()
        self.reasons: Counter[str] = Counter()
        """Of pairs that did not succeed."""
        self.sound: Counter[str] = Counter()
        """Nodes on which an image, as written, is."""
        self.revision = 0
        """Grows whenever a pair changes."""
        self.course: Course | None = None
        """Where the cache stood in its life when it was judged last."""
        self.again: Counter[PairState] = Counter()
        """Pairs that are there and about which a refresh has something to ask."""
        self.told: tuple[int, ImageCache] | None = None
        """Revision and cache at which the status was found right."""
        self.told_of_purge: object = None
        """What there was to say of removals when the status was looked at last."""
        self._targets = Targets(cache)
        self._by_node: dict[str, tuple[Pair, ...]] = {}
        self._meant: dict[str, tuple[int, ...]] = {}
        self._nodes_of_entry: Counter[int] = Counter()
        self._open: dict[str, tuple[Pair, ...]] = {}
        """By node, what is left to do there."""
        self.open_total = 0
        """Pairs with something left to do."""
        self._failing: dict[str, tuple[Pair, ...]] = {}
        """By node, those among them whose last attempt failed."""
        self._dues: tuple[int, Sequence[float]] | None = None
        """At which revision those are tried again."""
        self._open_in_order: list[str] | None = None
        """Those nodes, None while their order is not known."""
        self._moves = any(asks_again(cache, image) for entry in cache.lists for image in entry.images)
        self._shared: dict[tuple[Pair, ...], tuple[Pair, ...]] = {}

    @property
    def node_names(self) -> Collection[str]:
        """Names of those nodes."""
        return self._by_node

    @property
    def nodes(self) -> int:
        """Nodes that the cache means."""
        return len(self._by_node)

    @property
    def idle_entries(self) -> list[int]:
        """Indexes of entries of cacheSpec with images that mean no node."""
        lists = self.cache.lists
        return [index for index, entry in enumerate(lists) if entry.images and not self._nodes_of_entry[index]]

    @property
    def is_refreshed(self) -> bool:
        """Whether a refresh has anything to do whatever the nodes say: failures, or images that may have moved."""
        tried = (pair.state is not PairState.FAILED or pair.due_at is not None for pair in self.open_pairs())
        return self._moves or any(tried)

    def speaks_of(self, cache: ImageCache) -> bool:
        """Whether it was made for this spec, whatever became of the status, or of the form that a policy gives."""
        return cache is self.cache or _judged_by(cache) == _judged_by(self.cache)

    def judge_all(self, cache: ImageCache, pairs: Pairs) -> None:
        """Judge every node that the cache means."""
        self._judge(cache, pairs, self._targets.all_candidates(pairs.snapshot))

    def judge_changed(self, cache: ImageCache, pairs: Pairs, changed: Changed, restless: Collection[str]) -> None:
        """Bring it up to date.

        Args:
            cache: the cache as it is now, with the same spec.
            pairs: judges on the present snapshot.
            changed: nodes that changed since the last call.
            restless: nodes where pulls of ours moved: only what is left to do there may stand differently.
        """
        names = [*self._targets.candidates(changed.judged), *(name for name in restless if name in self._open)]
        if self._targets.follows_pods:
            names.extend(self._targets.candidates(changed.peopled.get(cache.namespace, ())))
        self._judge(cache, pairs, names)

    def judge_course(self, cache: ImageCache, pairs: Pairs, course: Course, doubtful: Collection[str]) -> None:
        """Bring it up to date after a refresh began or a deadline passed: what failed, and what is to be asked again.

        Args:
            cache: the cache as it is now, with the same spec.
            pairs: judges on the present snapshot.
            course: the new course.
            doubtful: nodes with evidence that may be in doubt.
        """
        self.course = course
        if self._moves:
            self.judge_all(cache, pairs)
        else:
            self._judge(cache, pairs, [*self._open, *(name for name in doubtful if name in self._by_node)])

    def judge_open(self, cache: ImageCache, pairs: Pairs) -> None:
        """Bring it up to date after the server's refusals came to concern all nodes, or no longer do."""
        self._judge(cache, pairs, list(self._open))

    def follow(self, cache: ImageCache) -> None:
        """Take over a new status of a cache for which nothing is to be judged."""
        self.cache = cache

    def _judge(self, cache: ImageCache, pairs: Pairs, names: Iterable[str]) -> None:
        """Judge these nodes anew."""
        self.cache = cache
        if cache.error or cache.deleted_at is not None:
            return
        for name in names:
            entries = self._targets.entries_on(name, pairs.snapshot)
            self._mean(name, entries)
            self._put(name, pairs.on_node(cache, self._targets.images_of(entries), name))

    def wants(self, node_name: str, image: str) -> bool:
        """Whether the cache asks for an image on a node, by whatever name."""
        name = canonical(image)
        return any(canonical(pair.image) == name for pair in self._by_node.get(node_name, ()))

    def open_pairs(self) -> Iterator[Pair]:
        """Pairs with something left to do, in the order in which they are to be pulled."""
        for name in self._nodes_in_order():
            yield from self._open[name]

    def open_nodes(self) -> Sequence[str]:
        """Nodes with something left to do, in the order in which they are to be pulled to."""
        return self._nodes_in_order()

    def failing_pairs(self) -> Iterator[Pair]:
        """Pairs whose last attempt failed, in the same order: few as a rule, where hundreds of thousands are open."""
        if self._failing:
            for name in self._nodes_in_order():
                yield from self._failing.get(name, ())

    def due_total(self, now: float) -> int:
        """How many pairs a pod may be ordered for."""
        return self.counts[PairState.PENDING] + self.again[PairState.PENDING] + bisect_right(self._due_times(), now)

    def next_due(self, now: float) -> float | None:
        """When the next pair that failed is tried again; None if none is."""
        times = self._due_times()
        later = bisect_right(times, now)
        return times[later] if later < len(times) else None

    def _due_times(self) -> Sequence[float]:
        """When pairs that failed are tried again, in order; of hundreds of thousands, they are asked for every look."""
        if self._dues is None or self._dues[0] != self.revision:
            failed = (pair for pairs in self._failing.values() for pair in pairs if pair.state is PairState.FAILED)
            times = sorted(pair.due_at for pair in failed if pair.due_at is not None)
            self._dues = (self.revision, times)
        return self._dues[1]

    def open_on(self, name: str) -> tuple[Pair, ...]:
        """Those of one node."""
        return self._open.get(name, ())

    def _nodes_in_order(self) -> Sequence[str]:
        if self._open_in_order is None:
            self._open_in_order = sorted(self._open, key=self._targets.rank)
        return self._open_in_order

    def pairs(self) -> Iterator[tuple[str, Pair]]:
        """Every pair with its node's name."""
        for name in sorted(self._by_node, key=self._targets.rank):
            for pair in self._by_node[name]:
                yield name, pair

    def _mean(self, name: str, entries: tuple[int, ...]) -> None:
        before = self._meant.get(name, ())
        if before == entries:
            return
        self.revision += 1
        self._nodes_of_entry.subtract(before)
        self._nodes_of_entry.update(entries)
        if entries:
            self._meant[name] = entries
        else:
            self._meant.pop(name, None)

    def _put(self, name: str, pairs: tuple[Pair, ...]) -> None:
        before = self._by_node.get(name, ())
        if before == pairs:
            return
        self.revision += 1
        self._count(before, -1)
        self._count(pairs, 1)
        still_open = tuple(pair for pair in pairs if pair.is_open)
        self.open_total += len(still_open) - len(self._open.get(name, ()))
        if bool(still_open) is not (name in self._open):
            self._open_in_order = None
        failing = tuple(pair for pair in still_open if pair.is_failing)
        if failing:
            self._failing[name] = failing
        else:
            self._failing.pop(name, None)
        if still_open:
            self._open[name] = still_open
        else:
            self._open.pop(name, None)
            # The pairs of settled nodes name no node: a thousand nodes share one value.
            pairs = self._shared.setdefault(pairs, pairs)
        if pairs:
            self._by_node[name] = pairs
        else:
            self._by_node.pop(name, None)

    def _count(self, pairs: tuple[Pair, ...], sign: int) -> None:
        for pair in pairs:
            self.counts[pair.counted] += sign
            if pair.there:
                self.again[pair.state] += sign
            if pair.counted is PairState.SUCCEEDED:
                self.sound[pair.image] += sign
            elif pair.reason:
                self.reasons[pair.reason] += sign


def _judged_by(cache: ImageCache) -> ImageCache:
    """What judging depends on: how pods look does not change what is there. An edited form is another generation."""
    return replace(cache, status=ImageCacheStatus(), resource_version="", puller_form=None)
