"""Which of the wanted pulls may start now? The one place where budgets, rates and slots are kept."""

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from msgspec import Struct

from prewarm.history import History
from prewarm.model.image_caches import ImageCache
from prewarm.model.images import canonical, registry_of
from prewarm.model.nodes import Node
from prewarm.model.pods import ContainerPhase, Pod, PodPhase
from prewarm.model.quantities import int_or_percent
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence import Warmth
from prewarm.puller.forms import form_on
from prewarm.puller.order import precedence
from prewarm.puller.pairs import Pair, Pairs, PairState
from prewarm.puller.pods import Order, order_for
from prewarm.puller.quota import Headroom
from prewarm.puller.reasons import WithheldReason
from prewarm.puller.refusals import Refusal, probed_at
from prewarm.puller.retry import registry_quiet_until, silent_registries
from prewarm.puller.settings import PullerSettings
from prewarm.puller.sharing import most_together
from prewarm.puller.standing import Standing
from prewarm.puller.work import Work

SPARE_SHARE = 0.05
"""Of the cluster's places, what planned ImageCaches with a pull under way leave to such without one: a rollout's first
pull does not wait until others have made all of theirs."""
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Waiting reasons of a container whose image may be in the kubelet's queue; one in back-off is not."""


class Admitted(Struct, frozen=True):
    """What may start now, and what keeps the rest."""

    orders: tuple[Order, ...]
    withheld: Mapping[WithheldReason, int]
    """Pairs that are due and wait, by reason."""
    look_again_at: float | None = None
    """When a reason that no change in the cluster lifts will have passed."""


def nodes_at_once(cache: ImageCache, nodes: int) -> int:
    """How many nodes a cache may pull on at once (spec.parallelism; absent or faulty: as many as budgets allow)."""
    if cache.parallelism is None:
        return nodes
    try:
        return max(1, int_or_percent(cache.parallelism, nodes, round_up=True))
    except ValueError:
        return nodes


class Admission:
    """Goes through due pairs in order and orders what fits; used once per snapshot."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        settings: PullerSettings,
        history: History,
        known: Warmth,
        work: Work,
        pairs: Pairs,
        refusals: Iterable[Refusal] = (),
        headroom: Headroom | None = None,
        under_way: int = 0,
        first_pulls: int = 0,
        resting: Mapping[ObjectKey, float] = {},
    ) -> None:
        """Prepare to order.

        Args:
            snapshot: the cluster.
            settings: budgets and the shape of pods.
            history: estimates of pull times.
            known: warmth of the same snapshot.
            work: pulls under way on it; what is ordered is added.
            pairs: judges on it.
            refusals: pods that the API server did not take.
            headroom: what quotas have left.
            under_way: creates that wait for the server's answer.
            first_pulls: places left to those who have no pull under way.
            resting: pods whose creation had no good answer, and until when they are not asked for again.
        """
        self._resting = resting
        self._snapshot = snapshot
        self._settings = settings
        self._history = history
        self._known = known
        self._work = work
        self._pairs = pairs
        self._refused = probed_at(refusals)
        self._silent = silent_registries(snapshot.node_images, snapshot.taken_at)
        self._orders: list[Order] = []
        self._ordered_pairs: dict[str, int] = {}
        """By uid of a cache, pairs in those orders."""
        self._under_way = under_way
        self._first_pulls = first_pulls
        self._withheld: dict[WithheldReason, int] = {}
        self._look_again_at: float | None = None
        self._busy: dict[str, float | None] = {}
        self._small: dict[str, bool] = {}
        self._headroom = headroom if headroom is not None else Headroom(snapshot)
        self._short_of_quota = self._headroom.refused
        self.waiting_for_quota: set[str] = set()
        """Uids of caches that wait for a quota."""

    def admit(self, standings: Iterable[Standing]) -> Admitted:
        """Order what fits, cache by cache in order of precedence, pair by pair in the cache's order."""
        for standing in sorted(standings, key=lambda standing: precedence(standing.cache)):
            if not standing.cache.suspend and not (standing.course is not None and standing.course.rests):
                self._admit_cache(standing)
        return Admitted(tuple(self._orders), self._withheld, self._look_again_at)

    def _admit_cache(self, standing: Standing) -> None:
        now = self._snapshot.taken_at
        total, seen, seen_taken = standing.due_total(now), 0, 0
        at_once = nodes_at_once(standing.cache, standing.nodes)
        registries = {registry_of(image) for entry in standing.cache.lists for image in entry.images}
        taken: set[tuple[str, str]] = set()
        due: Iterable[Pair] = self._due(standing, at_once)
        # Pulls on one node share its line and its disk: a second one begins where no idle node is left to begin with.
        later: list[Pair] = []
        for most in range(1, self._settings.node_pulls + 1):
            later = []
            for pair in due:
                seen += 1
                if (pair.node, pair.image) in taken:
                    seen_taken += 1
                    continue
                further = bool(self._work.nodes_of(standing.cache.uid))
                to_come = self._first_pulls if further else 0
                if self._under_way + len(self._orders) + to_come >= self._settings.orders_at_once:
                    self._look_again(now)
                    return
                spare = int(self._settings.cluster_pulls * SPARE_SHARE) if further and standing.cache.workload else 0
                if self._is_full(registries, max(to_come, spare)):
                    self._withhold(WithheldReason.BUDGET, total - seen + 1 - (len(taken) - seen_taken) + len(later))
                    return
                if self._work.on_node(pair.node) >= most:
                    later.append(pair)
                elif images := self._try(standing, pair, at_once):
                    taken.update((pair.node, image) for image in images)
                    seen_taken += 1
            if most == 1:
                # Of nodes beyond parallelism nothing was looked at.
                self._withhold(WithheldReason.BUDGET, total - seen - (len(taken) - seen_taken))
            total, seen, seen_taken = len(later), 0, 0
            due = later
            taken = set()
        self._withhold(WithheldReason.NODE_BUSY, len(later))

    def _is_full(self, registries: Iterable[str], left_free: int) -> bool:
        """Whether no further pod may be at work: in the cluster, but for some places, or with any of the registries."""
        work, settings = self._work, self._settings
        if work.total + left_free >= settings.cluster_pulls:
            return True
        return all(work.from_registry(registry) >= settings.registry_pulls for registry in registries)

    def _due(self, standing: Standing, at_once: int) -> Iterator[Pair]:
        """Pairs that are due, what is there already last; of nodes beyond parallelism none.

        Read while pods are ordered: of hundreds of thousands, those are looked at that have a place.
        """
        now, uid = self._snapshot.taken_at, standing.cache.uid
        again = standing.again[PairState.PENDING] + standing.again[PairState.FAILED]
        for there in (False, True) if again else (False,):
            for name in self._in_turn(standing):
                at_work = self._work.nodes_of(uid)
                if len(at_work) < at_once or name in at_work:
                    yield from (pair for pair in standing.open_on(name) if pair.there is there and pair.is_due(now))

    def _in_turn(self, standing: Standing) -> Iterator[str]:
        """Nodes with something left to do, as they are to be pulled to; of thousands, a look asks for some.

        Where small images share pods, nodes with less left than a pod holds come last, the fewest at the very end: then
        the last pods are short, and end together whenever they began. Not where the order of nodes is the planner's.
        """
        names, most = standing.open_nodes(), self._settings.images_per_pod
        images = {image for entry in standing.cache.lists for image in entry.images}
        if most == 1 or standing.cache.workload or sum(map(self._is_small, images)) < 2:
            yield from names
            return
        short: dict[int, list[str]] = {}
        for name in names:
            left = len(standing.open_on(name))
            if left >= most:
                yield name
            else:
                short.setdefault(left, []).append(name)
        for left in sorted(short, reverse=True):
            yield from short[left]

    def _try(self, standing: Standing, pair: Pair, at_once: int) -> tuple[str, ...]:
        """Order a pair that is due if it fits, maybe with others; images that need not be tried again now."""
        cache = standing.cache
        watched = pair.attempts > 0 or not standing.sound[pair.image]
        reason = self._obstacle(cache, pair, at_once, containers=1 + watched)
        if reason is not None:
            self._withhold(reason)
            return ()
        images = self._together(standing, pair, at_once)
        watched = pair.attempts > 0 or not all(standing.sound[image] for image in images)
        if not self._fits_quota(cache, len(images) + watched):
            return ()
        self._order(standing, pair, images, watched=watched)
        return images

    def _withhold(self, reason: WithheldReason, pairs: int = 1) -> None:
        if pairs:
            self._withheld[reason] = self._withheld.get(reason, 0) + pairs

    def _order(self, standing: Standing, pair: Pair, images: tuple[str, ...], *, watched: bool) -> None:
        cache, course = standing.cache, standing.course
        node = self._snapshot.nodes[pair.node]
        now = self._snapshot.taken_at
        refreshed_at = course.refresh.at if course is not None else 0.0
        order = order_for(
            cache,
            node.name,
            node.uid,
            images,
            pair.attempts + 1,
            now,
            refreshed_at=refreshed_at,
            watched=watched,
            form=form_on(cache, node),
        )
        if order.key in self._work.pods:
            # The pod of this very attempt still stands, its evidence already void: it is removed first.
            self._withhold(WithheldReason.NODE_BUSY)
            return
        rests_until = self._resting.get(order.key, 0.0)
        if rests_until > now:
            self._withhold(WithheldReason.NO_ANSWER)
            self._look_again(rests_until)
            return
        self._work.add(order)
        self._headroom.take(order)
        self._orders.append(order)
        self._ordered_pairs[cache.uid] = self._ordered_pairs.get(cache.uid, 0) + len(images)

    def _obstacle(self, cache: ImageCache, pair: Pair, at_once: int, containers: int) -> WithheldReason | None:
        """Why a pair that is due does not start in a pod of its own, though cluster and node have places for it."""
        work = self._work
        if work.is_active_anywhere(pair.node, pair.image):
            return WithheldReason.NODE_BUSY
        reason = self._registry_obstacle(pair)
        if reason is not None:
            return reason
        at_work = work.nodes_of(cache.uid)
        if len(at_work) >= at_once and pair.node not in at_work:
            return WithheldReason.BUDGET
        key = (cache.uid, canonical(pair.image))
        if key in self._refused:
            # One node at a time tells whether the server has changed its mind, or meant other nodes only.
            if work.is_unseen(cache.uid, pair.image):
                return WithheldReason.REFUSED
            if pair.state is PairState.PENDING and self._refused[key] > self._snapshot.taken_at:
                self._look_again(self._refused[key])
                return WithheldReason.REFUSED
        return self._node_obstacle(cache, pair, containers)

    def _fits_quota(self, cache: ImageCache, containers: int) -> bool:
        """Whether a pod with so many containers takes nothing from the pods of workloads: they go first."""
        if cache.namespace in self._short_of_quota:
            self._headroom.short.setdefault(cache.namespace, "the quota refuses pods of workloads: they go first")
        elif self._headroom.allows(cache, containers):
            return True
        self.waiting_for_quota.add(cache.uid)
        self._withhold(WithheldReason.QUOTA_HEADROOM)
        return False

    def _registry_obstacle(self, pair: Pair) -> WithheldReason | None:
        registry = registry_of(pair.image)
        at_work = self._work.from_registry(registry)
        if at_work >= self._settings.registry_pulls:
            return WithheldReason.BUDGET
        if registry in self._silent:
            if at_work >= self._settings.silent_registry_pulls:
                return WithheldReason.REGISTRY_SILENT
            until = registry_quiet_until(self._pairs.failures(pair.node).values(), registry, self._snapshot.taken_at)
            if until > self._snapshot.taken_at:
                self._look_again(until)
                return WithheldReason.REGISTRY_SILENT
        return None

    def _node_obstacle(self, cache: ImageCache, pair: Pair, containers: int) -> WithheldReason | None:
        node = self._snapshot.nodes[pair.node]
        if not self._has_room(node, cache.namespace, containers):
            return WithheldReason.NO_ROOM
        if node.name not in self._busy:
            self._busy[node.name] = waiting_until(
                self._snapshot.pods_by_node.get(node.name, {}).values(),
                self._known,
                self._snapshot,
                self._settings.pod_waiting_seconds,
            )
        until = self._busy[node.name]
        if until is not None:
            self._look_again(until)
            return WithheldReason.POD_WAITING
        return None

    def _has_room(self, node: Node, namespace: str, containers: int) -> bool:
        """Whether the kubelet would admit a puller pod of so many containers, all of which have requests.

        Amounts that the node does not report are not checked.
        """
        usage = self._snapshot.usage.get(node.name)
        if usage is None:
            return True
        unseen = self._work.unseen_on(node.name)
        # Pods that wait to be scheduled may land here: a puller takes none of the last slots from them.
        coming = min(len(self._snapshot.waiting_pods), self._settings.free_pod_slots)
        if usage.pods + len(unseen) + coming >= node.max_pods:
            return False
        allocatable = node.allocatable
        cpu, memory = usage.milli_cpu, usage.memory
        for found, count in (*((order.namespace, order.containers) for order in unseen), (namespace, containers)):
            requests = self._headroom.resources(found, count).requests
            cpu += requests["cpu"] * count
            memory += requests["memory"] * count
        return not (0 < allocatable.milli_cpu < cpu or 0 < allocatable.memory < memory)

    def _is_small(self, image: str) -> bool:
        """Whether pulling an image is known to take a moment only."""
        known = self._small.get(image)
        if known is None:
            estimate = self._history.pull_seconds(image)
            known = self._small[image] = estimate is not None and estimate <= self._settings.small_seconds
        return known

    def _together(self, standing: Standing, pair: Pair, at_once: int) -> tuple[str, ...]:
        """Images for one pod: the pair's, and if it is small, others on the same node that are as small and as new."""
        if not self._is_small(pair.image):
            return (pair.image,)
        cache, now = standing.cache, self._snapshot.taken_at
        images = [pair.image]
        chosen = {canonical(pair.image)}
        others = [other for other in standing.open_on(pair.node) if other.is_due(now) and self._is_small(other.image)]
        most = self._most_together(standing, at_once)
        for other in sorted(others, key=attrgetter("there")):
            if len(images) >= most:
                break
            key = (cache.uid, canonical(other.image))
            fits = other.attempts == 0 == pair.attempts and key not in self._refused and key[1] not in chosen
            # The sentinel may come on top.
            node = self._snapshot.nodes[other.node]
            fits = fits and self._has_room(node, cache.namespace, len(images) + 2)
            # Another pod, ordered a moment ago, may pull it already where a node takes several.
            fits = fits and not self._work.is_active_anywhere(other.node, other.image)
            if fits and self._registry_obstacle(other) is None:
                chosen.add(key[1])
                images.append(other.image)
        return tuple(images)

    def _most_together(self, standing: Standing, at_once: int) -> int:
        """How many images may share the next pod of a cache."""
        settings, counts = self._settings, standing.counts
        ordered = self._ordered_pairs.get(standing.cache.uid, 0)
        places = min(settings.cluster_pulls, settings.registry_pulls, at_once * settings.node_pulls)
        return most_together(
            begun=counts[PairState.SUCCEEDED] + counts[PairState.ACTIVE] + ordered,
            due=standing.due_total(self._snapshot.taken_at) - ordered,
            # What the first pods leave would be next in the planner's order, and bring them into step again.
            places=0 if standing.cache.workload else places,
            most=settings.images_per_pod,
        )

    def _look_again(self, at: float) -> None:
        self._look_again_at = at if self._look_again_at is None else min(at, self._look_again_at)


def waiting_until(pods: Iterable[Pod], known: Warmth, snapshot: ClusterSnapshot, patience: float) -> float | None:
    """Until when a node's own pods keep pulls away: some wait for an image that is not there; None if none does.

    A kubelet pulls first come, first served: what we queue now goes before the next image of a pod that waits already.
    Patience ends, since a pod may wait for other things (volumes) for ever.
    """
    latest: float | None = None
    for pod in pods:
        if pod.phase is not PodPhase.PENDING or pod.key in snapshot.puller_pods or pod.deleted_at is not None:
            continue
        until = (pod.scheduled_at or pod.created_at) + patience
        if until <= snapshot.taken_at:
            continue
        if _waits_for_image(pod, known):
            latest = until if latest is None else max(until, latest)
    return latest


def _waits_for_image(pod: Pod, known: Warmth) -> bool:
    statuses = {status.name: status for status in pod.containers}
    for shape in pod.shape.containers:
        status = statuses.get(shape.name)
        starting = status is None or (status.phase is ContainerPhase.WAITING and status.reason in _STARTING)
        if starting and not known.is_there(pod.node_name, shape.image):
            return True
    return False
