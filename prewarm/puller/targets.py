"""Which nodes does an ImageCache mean?"""

from collections.abc import Collection, Iterable

from prewarm.model.image_caches import ImageCache
from prewarm.model.meant import selects
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


def obstacle(node: Node, cache: ImageCache) -> NodeState | None:
    """Why the node takes no pull for this cache now; the cache's tolerations lift taints."""
    return pull_obstacle(node, (*POD_TOLERATIONS, *cache.tolerations))


class Targets:
    """The nodes that a cache's entries mean, ready to be asked node by node."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._entries = tuple(
            (entry, None if entry.node_names is None else frozenset(entry.node_names)) for entry in cache.lists
        )
        named = [name for entry in cache.lists for name in entry.node_names or ()]
        self._ranks = {name: rank for rank, name in enumerate(dict.fromkeys(named))}
        self._only_named = all(names is not None for _, names in self._entries)
        self._images: dict[tuple[int, ...], tuple[str, ...]] = {}
        self.follows_pods = any(entry.pod_selector is not None for entry in cache.lists)
        """Whether a node may be meant, or not any more, because a pod came or went."""

    def candidates(self, names: Collection[str]) -> Iterable[str]:
        """Those of some nodes that the cache may mean."""
        return [name for name in names if name in self._ranks] if self._only_named else names

    def all_candidates(self, snapshot: ClusterSnapshot) -> Iterable[str]:
        """All nodes that the cache may mean, named ones that do not exist included."""
        return self._ranks if self._only_named else dict.fromkeys((*self._ranks, *snapshot.nodes))

    def rank(self, name: str) -> tuple[int, str]:
        """The order of nodes: named ones as given, which is the planner's order of value, then others by name."""
        return (self._ranks.get(name, len(self._ranks)), name)

    def entries_on(self, name: str, snapshot: ClusterSnapshot) -> tuple[int, ...]:
        """Indexes of the entries that mean a node.

        One that names a node that does not exist means it, whatever else it asks of it: its labels are not known, and
        a name with a typing error has to show. An entry that asks for pods means no such node: none is there.
        """
        node = snapshot.nodes.get(name)
        found = []
        for index, (entry, names) in enumerate(self._entries):
            if names is not None and name not in names:
                continue
            if node is None:
                meant = names is not None and entry.pod_selector is None
            else:
                meant = selects(entry, self._cache.namespace, node, snapshot)
            if meant:
                found.append(index)
        return tuple(found)

    def images_of(self, entries: tuple[int, ...]) -> tuple[str, ...]:
        """Images of some entries as written, in their order, each once."""
        images = self._images.get(entries)
        if images is None:
            images = tuple(dict.fromkeys(image for index in entries for image in self._cache.lists[index].images))
            self._images[entries] = images
        return images

    def images_on(self, name: str, snapshot: ClusterSnapshot) -> tuple[str, ...]:
        """Images as written that the cache asks for on a node, each once."""
        return self.images_of(self.entries_on(name, snapshot))
