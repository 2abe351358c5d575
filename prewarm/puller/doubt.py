"""Which images on a node may be gone although nothing says so?

The kubelet lists the 50 largest images only. Of one that is not on the list we know by our own pull, or by a container
that ran. That is believed, unless the node was short of disk since (then the kubelet deletes what does not run), or a
day has passed. Only a refresh asks, by one pod that finds the image, or pulls it.
"""

from collections.abc import Collection, Mapping

from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeImages
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence import record_holds
from prewarm.presence.evidence import images_started, listed_names
from prewarm.presence.names import by_digest, keys

DOUBT_SECONDS = 86_400.0
"""Age at which evidence that the node's own list does not bear out is asked for again."""


def unlisted(node: Node, record: NodeImages | None) -> dict[str, float]:
    """Recorded images (canonical) that the node does not list, with the time of the newest evidence."""
    if record is None or not record_holds(record, node):
        return {}
    found: dict[str, float] = {}
    listed: dict[str, int] | None = None
    for entry in record.images:
        if entry.evidence is Evidence.NODE_STATUS:
            continue
        if listed is None:
            listed = listed_names(node)
        if by_digest(entry.image, entry.digest) in listed or any(key in listed for key in keys(entry.image)):
            continue
        found[entry.image] = max(entry.since, found.get(entry.image, entry.since))
    return found


def is_doubtful(since: float, node: Node, asked_at: float) -> bool:
    """Whether evidence of that time is not enough for a refresh that began at `asked_at`."""
    if since >= asked_at:
        return False
    return asked_at - since >= DOUBT_SECONDS or since < node.disk_pressure_changed_at


class Doubts:
    """Nodes with images that they do not list, read anew only where a node changed."""

    def __init__(self) -> None:
        self._unlisted: dict[str, Mapping[str, float]] = {}
        self._stale: set[str] = set()
        self._used: tuple[Mapping[ObjectKey, Pod], frozenset[str]] | None = None
        """Of the node that was asked about last."""

    def changed(self, names: Collection[str]) -> None:
        """Tell which nodes changed."""
        self._stale.update(names)

    def nodes(self, snapshot: ClusterSnapshot) -> Collection[str]:
        """Nodes on which anything may be doubtful."""
        for name in self._stale:
            node = snapshot.nodes.get(name)
            found = unlisted(node, snapshot.node_images.get(name)) if node is not None else None
            if found:
                self._unlisted[name] = found
            else:
                self._unlisted.pop(name, None)
        self._stale.clear()
        return self._unlisted.keys()

    def concerns(self, snapshot: ClusterSnapshot, node: Node, image: str, asked_at: float) -> bool:
        """Whether it is doubtful that the image is on the node."""
        if self._stale:
            self.nodes(snapshot)
        found = self._unlisted.get(node.name)
        if found is None:
            return False
        name = canonical(image)
        since = found.get(name)
        if since is None or not is_doubtful(since, node, asked_at):
            return False
        return name not in self._used_on(node.name, snapshot)

    def _used_on(self, node_name: str, snapshot: ClusterSnapshot) -> frozenset[str]:
        """Images (canonical) that containers on the node use; read once for a hundred images of the node."""
        pods = snapshot.pods_by_node.get(node_name, {})
        if self._used is None or self._used[0] is not pods:
            used = frozenset(canonical(image) for pod in pods.values() for image, _ in images_started(pod))
            self._used = (pods, used)
        return self._used[1]
