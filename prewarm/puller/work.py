"""What is under way? Live puller pods, and pods ordered but not seen yet, in the groupings that decisions need."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from prewarm.api.fields import one_line
from prewarm.model.image_caches import ImageCache
from prewarm.model.images import canonical, registry_of
from prewarm.model.nodes import FailedPull, is_answering
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence import pulls_for
from prewarm.puller.hearsay import Hearsay
from prewarm.puller.outcome import MAX_MESSAGE, PullState, Reading
from prewarm.puller.pods import Order, attempt_of
from prewarm.puller.readings import Readings

DEFAULT_TIMEOUT_SECONDS = 600.0
"""For pods whose ImageCache is gone."""
_NOWHERE: Collection[str] = frozenset()


class Work:
    """Pulls under way on one snapshot.

    A pod is under way until every image has its verdict; then it gives its place to the next, though its phase takes
    another second. Pods on nodes that do not answer hold no place.
    """

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        orders: Iterable[Order] = (),
        failed_at: dict[str, float] | None = None,
        hearsay: Hearsay | None = None,
        readings: Readings | None = None,
    ) -> None:
        """Read every pod that changed.

        Args:
            snapshot: the cluster.
            orders: pods ordered and perhaps not visible yet.
            failed_at: by pod uid, when a failure was first seen; written to, since a pod's status does not tell.
            hearsay: what else is known of the pods.
            readings: of the snapshot before.
        """
        hearsay = hearsay if hearsay is not None else Hearsay()
        read_before = readings if readings is not None else Readings()
        self._failed_at = failed_at if failed_at is not None else {}
        self.caches: Mapping[str, ImageCache] = {cache.uid: cache for cache in snapshot.image_caches.values()}
        self.readings: tuple[Reading, ...] = read_before.take(snapshot, hearsay, self.timeout_of)
        self._moved = read_before.moved
        self.readings_by_node: dict[str, list[Reading]] = {}
        """In the order in which they were tried."""
        self._active: dict[tuple[str, str], set[str]] = {}
        self._per_node: dict[str, int] = {}
        self._per_registry: dict[str, int] = {}
        self._nodes_of_cache: dict[str, set[str]] = {}
        self._unseen: dict[str, list[Order]] = {}
        self._unseen_images: set[tuple[str, str]] = set()
        self.pods: set[ObjectKey] = set(snapshot.puller_pods)
        self.total = 0
        for reading in self.readings:
            self.readings_by_node.setdefault(reading.pod.node_name, []).append(reading)
            pod = reading.pod
            if reading.failed:
                # Whole seconds: what is read back from the API has to equal what was written. Not before the refresh
                # for which it was tried, or a clock that was set back would have it tried at once for ever.
                self._failed_at.setdefault(pod.uid, max(float(int(snapshot.taken_at)), pulls_for(pod)))
            if reading.settled:
                continue
            node = snapshot.nodes.get(pod.node_name)
            self._count(
                node=pod.node_name,
                cache_uid=pod.owner.uid if pod.owner is not None else "",
                images=reading.pulling,
                identity=reading.identity,
                holds_place=node is not None and is_answering(node),
            )
        for tried in self.readings_by_node.values():
            if len(tried) > 1:
                tried.sort(key=lambda reading: (reading.turn, reading.pod.key))
        for order in orders:
            if order.key not in self.pods:
                self.add(order)

    def timeout_of(self, pod: Pod) -> float:
        """How long the attempt that a pod stands for may take, in seconds."""
        cache = self.caches.get(pod.owner.uid) if pod.owner is not None else None
        seconds = cache.attempt_timeout_seconds if cache is not None else None
        return seconds if seconds is not None else DEFAULT_TIMEOUT_SECONDS

    def _count(self, *, node: str, cache_uid: str, images: Collection[str], identity: str, holds_place: bool) -> None:
        """Count a pod; `images` are canonical."""
        for image in images:
            self._active.setdefault((node, image), set()).update((identity, cache_uid))
        if not holds_place:
            return
        self.total += 1
        self._per_node[node] = self._per_node.get(node, 0) + 1
        for registry in {registry_of(image) for image in images}:
            self._per_registry[registry] = self._per_registry.get(registry, 0) + 1
        self._nodes_of_cache.setdefault(cache_uid, set()).add(node)

    def add(self, order: Order) -> None:
        """Count a pod that is being ordered."""
        images = tuple(map(canonical, order.images))
        self._unseen_images.update((order.cache_uid, image) for image in images)
        self._unseen.setdefault(order.node, []).append(order)
        self.pods.add(order.key)
        self._count(
            node=order.node,
            cache_uid=order.cache_uid,
            images=images,
            identity=order.pull_identity,
            holds_place=True,
        )

    @property
    def moved(self) -> set[str]:
        """Nodes on which pods say something else than in the snapshot before, or are ordered and not seen yet."""
        return {*self._moved, *self._unseen}

    def is_active(self, node: str, image: str, identity: str, cache_uid: str) -> bool:
        """Whether a pod under way pulls the image there, for this cache or under the same credentials."""
        by = self._active.get((node, canonical(image)))
        return by is not None and (identity in by or cache_uid in by)

    def is_active_anywhere(self, node: str, image: str) -> bool:
        """Whether any pod under way pulls the image there, whoever asked."""
        return (node, canonical(image)) in self._active

    def is_unseen(self, cache_uid: str, image: str) -> bool:
        """Whether a pod ordered for the cache with this image, on any node, has not been seen yet."""
        return (cache_uid, canonical(image)) in self._unseen_images

    def unseen_on(self, node: str) -> Sequence[Order]:
        """Pods ordered for a node that the snapshot's usage does not hold yet."""
        return self._unseen.get(node, ())

    def on_node(self, node: str) -> int:
        """Pods under way on a node."""
        return self._per_node.get(node, 0)

    def from_registry(self, registry: str) -> int:
        """Pods under way that pull from a registry."""
        return self._per_registry.get(registry, 0)

    def nodes_of(self, cache_uid: str) -> Collection[str]:
        """Nodes on which pods of a cache are under way, as of now: not a copy."""
        return self._nodes_of_cache.get(cache_uid, _NOWHERE)

    def failed_at(self, pod: Pod) -> float:
        """When a pod was first seen to have failed."""
        return self._failed_at.get(pod.uid, 0.0)

    def failures_of(self, reading: Reading, recorded: Iterable[FailedPull]) -> list[FailedPull]:
        """Failed images of a pod, as they are to be recorded; an attempt that is on record keeps its time.

        Of an attempt after which another one was recorded, nothing: its pod is only kept for people to look at.
        """
        pod = reading.pod
        if pod.owner is None or not reading.failed:
            return []
        attempt = attempt_of(pod)
        known = {failure.image: failure for failure in recorded if failure.cache_uid == pod.owner.uid}
        begun = pulls_for(pod)
        found = []
        for result in reading.results:
            if result.state is not PullState.FAILED or result.reason is None:
                continue
            image = canonical(result.image)
            fresh = FailedPull(
                image=image,
                cache=f"{pod.namespace}/{pod.owner.name}",
                cache_uid=pod.owner.uid,
                reason=result.reason.value,
                message=one_line(result.message, MAX_MESSAGE),
                attempts=attempt,
                at=self._failed_at.get(pod.uid, 0.0),
                pull_identity=reading.identity,
            )
            before = known.get(image)
            if before is None or before.at < begun or before.attempts < attempt:
                found.append(fresh)
            elif before.attempts == attempt:
                found.append(before)
        return found
