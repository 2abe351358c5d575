"""Which nodes does an ImageCache mean?"""

from collections.abc import Iterator, Mapping

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


def nodes_of(entry: ImageList, cache: ImageCache, snapshot: ClusterSnapshot) -> Iterator[tuple[str, Node | None]]:
    """Nodes that one list means, in its order; None for a named one that does not exist.

    Named nodes come in the order given, which is the planner's order of value; others by name.
    """
    if entry.node_names is not None:
        for name in dict.fromkeys(entry.node_names):
            node = snapshot.nodes.get(name)
            if node is None or matches(entry, node):
                yield name, node
        return
    for name in sorted(snapshot.nodes):
        node = snapshot.nodes[name]
        if entry.node_selector:
            if matches(entry, node):
                yield name, node
        elif obstacle(node, cache) not in _NEVER_MEANT:
            yield name, node


def asks_for(cache: ImageCache, node: Node, image: str) -> bool:
    """Whether the cache wants the image on this node, by whatever name."""
    if cache.error or cache.deleted_at is not None:
        return False
    name = canonical(image)
    for entry in cache.lists:
        if entry.node_names is not None and node.name not in entry.node_names:
            continue
        unbounded = entry.node_names is None and not entry.node_selector
        if not matches(entry, node) or (unbounded and obstacle(node, cache) in _NEVER_MEANT):
            continue
        if any(canonical(other) == name for other in entry.images):
            return True
    return False


def targets(cache: ImageCache, snapshot: ClusterSnapshot) -> Mapping[tuple[str, str], Node | None]:
    """Every (node name, image as written) that the cache asks for, each once, in order."""
    wanted: dict[tuple[str, str], Node | None] = {}
    for entry in cache.lists:
        for name, node in nodes_of(entry, cache, snapshot):
            for image in entry.images:
                wanted.setdefault((name, image), node)
    return wanted
