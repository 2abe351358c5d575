"""Which nodes does an ImageCache mean?"""

from collections.abc import Collection, Iterable

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import canonical
from prewarm.model.nodes import Node, NodeState, pull_obstacle
from prewarm.model.pods import Toleration
from prewarm.model.snapshot import ClusterSnapshot

POD_TOLERATIONS = (
    Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/memory-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/pid-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule"),
)
"""What every puller pod tolerates: as DaemonSets do, disk pressure aside."""

_NEVER_MEANT = frozenset({NodeState.TAINTED, NodeState.VIRTUAL, NodeState.OPERATING_SYSTEM})
"""Nodes that take no ordinary pods: a list that names and selects none does not mean them."""


def obstacle(node: Node, cache: ImageCache) -> NodeState | None:
    """Why the node takes no pull for this cache now; the cache's tolerations lift taints."""
    return pull_obstacle(node, (*POD_TOLERATIONS, *cache.tolerations))


def matches(entry: ImageList, node: Node) -> bool:
    """Whether the list's node selector allows the node."""
    return all(node.labels.get(key) == value for key, value in entry.node_selector)


class Targets:
    """The nodes that a cache's lists mean, ready to be asked node by node."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._lists = tuple(
            (entry, None if entry.node_names is None else frozenset(entry.node_names)) for entry in cache.lists
        )
        named = [name for entry in cache.lists for name in entry.node_names or ()]
        self._ranks = {name: rank for rank, name in enumerate(dict.fromkeys(named))}
        self._only_named = all(names is not None for _, names in self._lists)

    def candidates(self, names: Collection[str]) -> Iterable[str]:
        """Those of some nodes that the cache may mean."""
        return [name for name in names if name in self._ranks] if self._only_named else names

    def all_candidates(self, snapshot: ClusterSnapshot) -> Iterable[str]:
        """All nodes that the cache may mean, named ones that do not exist included."""
        return self._ranks if self._only_named else dict.fromkeys((*self._ranks, *snapshot.nodes))

    def rank(self, name: str) -> tuple[int, str]:
        """The order of nodes: named ones as given, which is the planner's order of value, then others by name."""
        return (self._ranks.get(name, len(self._ranks)), name)

    def images_on(self, name: str, node: Node | None) -> tuple[str, ...]:
        """Images as written that the cache asks for on a node, each once; `node` is None if there is none."""
        images: dict[str, None] = {}
        for entry, names in self._lists:
            if names is not None and name not in names:
                continue
            if node is None:
                if names is not None:
                    images.update(dict.fromkeys(entry.images))
            elif matches(entry, node) and (
                names is not None or entry.node_selector or obstacle(node, self._cache) not in _NEVER_MEANT
            ):
                images.update(dict.fromkeys(entry.images))
        return tuple(images)


def asks_for(cache: ImageCache, node: Node, image: str) -> bool:
    """Whether the cache wants the image on this node, by whatever name."""
    if cache.error or cache.deleted_at is not None:
        return False
    return canonical(image) in map(canonical, Targets(cache).images_on(node.name, node))
