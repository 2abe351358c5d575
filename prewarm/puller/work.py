"""What is under way? Live puller pods, and pods ordered but not seen yet, in the groupings that decisions need."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prewarm.api.fields import one_line
from prewarm.model.image_caches import ImageCache
from prewarm.model.images import canonical, registry_of
from prewarm.model.nodes import FailedPull, NodeState, pull_identity, pull_obstacle
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence import pulls_for
from prewarm.puller.hearsay import Hearsay
from prewarm.puller.outcome import MAX_MESSAGE, PullState, Reading, read
from prewarm.puller.pods import Order, attempt_of
from prewarm.puller.targets import POD_TOLERATIONS

DEFAULT_TIMEOUT_SECONDS = 600.0
"""For pods whose ImageCache is gone."""


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
    ) -> None:
        """Read every pod once.

        Args:
            snapshot: the cluster.
            orders: pods ordered and perhaps not visible yet.
            failed_at: by pod uid, when a failure was first seen; written to, since a pod's status does not tell.
            hearsay: what else is known of the pods.
        """
        self._hearsay = hearsay if hearsay is not None else Hearsay()
        self._failed_at = failed_at if failed_at is not None else {}
        self.caches: Mapping[str, ImageCache] = {cache.uid: cache for cache in snapshot.image_caches.values()}
        self.readings: tuple[Reading, ...] = tuple(self._read(snapshot))
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
            if any(result.state is PullState.FAILED for result in reading.results):
                # Whole seconds: what is read back from the API has to equal what was written. Not before the refresh
                # for which it was tried, or a clock that was set back would have it tried at once for ever.
                self._failed_at.setdefault(pod.uid, max(float(int(snapshot.taken_at)), pulls_for(pod)))
            if reading.settled:
                continue
            images = [result.image for result in reading.results if result.state is PullState.PULLING]
            node = snapshot.nodes.get(pod.node_name)
            holds_place = node is not None and pull_obstacle(node, POD_TOLERATIONS) not in {
                NodeState.NOT_READY,
                NodeState.LEAVING,
            }
            self._count(
                node=pod.node_name,
                cache_uid=pod.owner.uid if pod.owner is not None else "",
                images=images,
                identity=pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets),
                holds_place=holds_place,
            )
        for readings in self.readings_by_node.values():
            readings.sort(key=lambda reading: (pulls_for(reading.pod), attempt_of(reading.pod), reading.pod.key))
        for order in orders:
            if order.key not in self.pods:
                self.add(order)

    def _read(self, snapshot: ClusterSnapshot) -> Iterator[Reading]:
        for key in sorted(snapshot.puller_pods):
            pod = self._hearsay.restored(snapshot.puller_pods[key])
            yield read(pod, snapshot.taken_at, self.timeout_of(pod), self._hearsay.missing_secret(pod))

    def timeout_of(self, pod: Pod) -> float:
        """How long the attempt that a pod stands for may take, in seconds."""
        cache = self.caches.get(pod.owner.uid) if pod.owner is not None else None
        seconds = cache.attempt_timeout_seconds if cache is not None else None
        return seconds if seconds is not None else DEFAULT_TIMEOUT_SECONDS

    def _count(self, *, node: str, cache_uid: str, images: list[str], identity: str, holds_place: bool) -> None:
        for image in images:
            self._active.setdefault((node, canonical(image)), set()).update({identity, cache_uid})
        if not holds_place:
            return
        self.total += 1
        self._per_node[node] = self._per_node.get(node, 0) + 1
        for registry in {registry_of(image) for image in images}:
            self._per_registry[registry] = self._per_registry.get(registry, 0) + 1
        self._nodes_of_cache.setdefault(cache_uid, set()).add(node)

    def add(self, order: Order) -> None:
        """Count a pod that is being ordered."""
        self._unseen_images.update((order.cache_uid, canonical(image)) for image in order.images)
        self._unseen.setdefault(order.node, []).append(order)
        self.pods.add(order.key)
        self._count(
            node=order.node,
            cache_uid=order.cache_uid,
            images=list(order.images),
            identity=order.pull_identity,
            holds_place=True,
        )

    @property
    def nodes(self) -> set[str]:
        """Nodes with a pod of ours, seen or not."""
        return {*self.readings_by_node, *self._unseen}

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

    def nodes_of(self, cache_uid: str) -> frozenset[str]:
        """Nodes on which pods of a cache are under way."""
        return frozenset(self._nodes_of_cache.get(cache_uid, ()))

    def failed_at(self, pod: Pod) -> float:
        """When a pod was first seen to have failed."""
        return self._failed_at.get(pod.uid, 0.0)

    def failures_of(self, reading: Reading, recorded: Iterable[FailedPull]) -> list[FailedPull]:
        """Failed images of a pod, as they are to be recorded; an attempt that is on record keeps its time.

        Of an attempt after which another one was recorded, nothing: its pod is only kept for people to look at.
        """
        pod = reading.pod
        if pod.owner is None:
            return []
        attempt = attempt_of(pod)
        identity = pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets)
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
                pull_identity=identity,
            )
            before = known.get(image)
            if before is None or before.at < begun or before.attempts < attempt:
                found.append(fresh)
            elif before.attempts == attempt:
                found.append(before)
        return found
