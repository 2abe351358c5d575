"""What may the ImageCaches of a namespace have together? The limits of the policy that concerns it, shared out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.image_caches import Allowance, ImageCache, Limits
from prewarm.model.images import canonical, parse_reference
from prewarm.model.nodes import Node
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.puller.order import precedence
from prewarm.puller.policies import limits_by_namespace
from prewarm.puller.reasons import WithheldReason
from prewarm.puller.targets import Targets

_Element = TypeVar("_Element")


def refusal(allowance: Allowance | None, node: Node | None, node_name: str, image: str) -> WithheldReason | None:
    """Why the limits of the namespace keep an image from a node; `node` is None if there is none of the name."""
    if allowance is None:
        return None
    limits = allowance.limits
    if not _is_registry_allowed(limits, image):
        return WithheldReason.REGISTRY_NOT_ALLOWED
    if node is not None and not _is_node_allowed(limits, node):
        return WithheldReason.NODES_NOT_ALLOWED
    spelling = canonical(image)
    if limits.images is not None and spelling not in allowance.images:
        return WithheldReason.LIMIT_IMAGES
    if node is not None and limits.nodes is not None and node_name not in allowance.nodes:
        return WithheldReason.LIMIT_NODES
    if (node_name, spelling) in allowance.too_large:
        return WithheldReason.LIMIT_BYTES
    return None


def _is_registry_allowed(limits: Limits, image: str) -> bool:
    if limits.registries is None:
        return True
    try:
        name = parse_reference(image).name
    except ValueError:
        return False
    # Whole components: registry.example/team is no leave for registry.example/teammate.
    return any(name == allowed or name.startswith(f"{allowed}/") for allowed in limits.registries)


def _is_node_allowed(limits: Limits, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in limits.node_selector)


class _Shares:
    """Shares out the limits of one namespace, cache by cache."""

    def __init__(self, limits: Limits, snapshot: ClusterSnapshot, history: History) -> None:
        self._limits = limits
        self._snapshot = snapshot
        self._history = history
        self._images: set[str] = set()
        self._nodes: set[str] = set()
        self._pairs: set[tuple[str, str]] = set()
        self._too_large: set[tuple[str, str]] = set()
        self._bytes = 0
        self._last = Allowance(limits)

    def take(self, cache: ImageCache) -> Allowance:
        """What is left for a cache, which is then taken."""
        limits = self._limits
        if limits.images is not None:
            for image in _images(cache):
                if _is_registry_allowed(limits, image) and len(self._images) < limits.images:
                    self._images.add(canonical(image))
        if limits.nodes is not None or limits.bytes is not None:
            for node, images in self._places(cache):
                self._take_node(node, images)
        last = self._last
        self._last = Allowance(
            limits,
            images=_grown(last.images, self._images),
            nodes=_grown(last.nodes, self._nodes),
            too_large=_grown(last.too_large, self._too_large),
        )
        return self._last

    def _places(self, cache: ImageCache) -> Iterator[tuple[str, Sequence[str]]]:
        """Nodes that exist and are allowed, in the cache's order, with the images in question there."""
        targets = Targets(cache)
        asked: dict[tuple[int, ...], Sequence[str]] = {}
        for name in sorted(targets.all_candidates(self._snapshot), key=targets.rank):
            node = self._snapshot.nodes.get(name)
            if node is None or not _is_node_allowed(self._limits, node):
                continue
            entries = targets.entries_on(name, self._snapshot)
            images = asked.get(entries)
            if images is None:
                images = asked[entries] = self._in_question(targets.images_of(entries))
            if images:
                yield name, images

    def _in_question(self, images: Iterable[str]) -> Sequence[str]:
        return [
            canonical(image)
            for image in images
            if _is_registry_allowed(self._limits, image)
            and (self._limits.images is None or canonical(image) in self._images)
        ]

    def _take_node(self, node: str, images: Sequence[str]) -> None:
        if self._limits.nodes is not None and node not in self._nodes:
            if len(self._nodes) >= self._limits.nodes:
                return
            self._nodes.add(node)
        if self._limits.bytes is None:
            return
        for image in images:
            pair = (node, image)
            if pair in self._pairs:
                continue
            size = self._history.image_size(image) or 0
            if self._bytes + size > self._limits.bytes:
                self._too_large.add(pair)
            else:
                self._pairs.add(pair)
                self._bytes += size


def _grown(before: frozenset[_Element], now: set[_Element]) -> frozenset[_Element]:
    """A copy of a set that only grows; the same one while it did not: thousands of nodes are kept once."""
    return before if len(before) == len(now) else frozenset(now)


def _images(cache: ImageCache) -> Iterator[str]:
    for entry in cache.lists:
        yield from entry.images


class _Applied(Struct, frozen=True):
    """A cache as it came, and as the limits left it."""

    cache: ImageCache
    limited: ImageCache


class _Shared(Struct, frozen=True):
    """What was shared out in a namespace, and from what that followed."""

    basis: tuple[object, ...]
    allowances: Mapping[ObjectKey, Allowance]


class LimitsMemory:
    """Applies limits to one snapshot after the other; a cache of which they leave the same stays the same object.

    Sharing out looks at every node for every cache: it is done anew only where something that counts for it changed.
    """

    def __init__(self) -> None:
        self._applied: dict[ObjectKey, _Applied] = {}
        self._shared: dict[str, _Shared] = {}
        self._nodes: Mapping[str, Node] = {}
        self._labels: dict[str, Mapping[str, str]] = {}
        self._labelled = 0
        """Grows whenever a node comes or goes, or its labels change."""

    def apply(self, snapshot: ClusterSnapshot, history: History) -> ClusterSnapshot:
        """The snapshot with priorities capped, and each cache's allowance set where its namespace has limits."""
        if not any(policy.limits is not None for policy in snapshot.policies.values()):
            self._applied, self._shared = {}, {}
            return snapshot
        self._look_at(snapshot.nodes)
        by_namespace: dict[str, list[ImageCache]] = {}
        for cache in snapshot.image_caches.values():
            by_namespace.setdefault(cache.namespace, []).append(cache)
        caches = dict(snapshot.image_caches)
        applied: dict[ObjectKey, _Applied] = {}
        shared: dict[str, _Shared] = {}
        limits_of = limits_by_namespace(snapshot)
        for namespace in sorted(by_namespace):
            limits = limits_of(namespace)
            if limits is None:
                continue
            capped = sorted((_capped(cache, limits) for cache in by_namespace[namespace]), key=precedence)
            shared[namespace] = self._share(namespace, limits, capped, snapshot, history)
            for limited in capped:
                cache, allowance = snapshot.image_caches[limited.key], shared[namespace].allowances.get(limited.key)
                known = self._applied.get(cache.key)
                if known is None or known.cache is not cache or known.limited.allowance is not allowance:
                    known = _Applied(cache, replace(limited, allowance=allowance))
                applied[cache.key] = known
                caches[cache.key] = known.limited
        self._applied, self._shared = applied, shared
        return replace(snapshot, image_caches=caches)

    def _share(
        self,
        namespace: str,
        limits: Limits,
        caches: Sequence[ImageCache],
        snapshot: ClusterSnapshot,
        history: History,
    ) -> _Shared:
        """What each cache gets, in their order; as before if nothing changed that counts."""
        basis = self._basis(limits, caches, snapshot, history)
        known = self._shared.get(namespace)
        if known is not None and known.basis == basis:
            return known
        shares = _Shares(limits, snapshot, history)
        allowances: dict[ObjectKey, Allowance] = {}
        for cache in caches:
            if not cache.error and cache.deleted_at is None:
                allowance = shares.take(cache)
                before = known.allowances.get(cache.key) if known is not None else None
                allowances[cache.key] = before if before == allowance else allowance
        return _Shared(basis, allowances)

    def _basis(
        self, limits: Limits, caches: Sequence[ImageCache], snapshot: ClusterSnapshot, history: History
    ) -> tuple[object, ...]:
        specs = tuple((cache.key, cache.uid, cache.error, cache.deleted_at, cache.lists) for cache in caches)
        follows_pods = any(entry.pod_selector is not None for cache in caches for entry in cache.lists)
        sizes: tuple[int | None, ...] = ()
        if limits.bytes is not None:
            images = dict.fromkeys(canonical(image) for cache in caches for image in _images(cache))
            sizes = tuple(map(history.image_size, images))
        # Whatever is not changed but replaced is known by its identity; kept here, so that it is not given anew.
        pods = _Same(snapshot.pods_by_node) if follows_pods else None
        return (limits, specs, self._labelled, sizes, pods)

    def _look_at(self, nodes: Mapping[str, Node]) -> None:
        if nodes is self._nodes:
            return
        self._nodes = nodes
        labels = {name: node.labels for name, node in nodes.items()}
        if labels != self._labels:
            self._labels = labels
            self._labelled += 1


class _Same:
    """Equal to itself in the sense of identity only: comparing all pods would cost more than it saves."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    __hash__ = None  # type: ignore[assignment]


def _capped(cache: ImageCache, limits: Limits) -> ImageCache:
    if limits.priority is None or cache.priority <= limits.priority:
        return cache
    return replace(cache, priority=limits.priority)
