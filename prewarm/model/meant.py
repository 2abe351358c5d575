"""Does an entry of an ImageCache's cacheSpec mean a node? Asked wherever nodes and caches are matched."""

from prewarm.model.image_caches import ImageList
from prewarm.model.nodes import Node
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot


def selects(entry: ImageList, namespace: str, node: Node, snapshot: ClusterSnapshot) -> bool:
    """Whether a node fits nodeSelector, nodeSelectorTerms and podSelector of an entry, all that are given.

    Its nodeNames are for the caller to look at, who keeps them as a set.

    Args:
        entry: one entry of spec.cacheSpec.
        namespace: the ImageCache's own, whose pods count.
        node: the node.
        snapshot: of the same moment.
    """
    labels = node.labels
    if any(labels.get(key) != value for key, value in entry.node_selector):
        return False
    if entry.node_selector_terms and not any(term.matches(node.name, labels) for term in entry.node_selector_terms):
        return False
    return entry.pod_selector is None or hosts(node.name, namespace, entry.pod_selector, snapshot)


def hosts(node_name: str, namespace: str, selector: LabelSelector, snapshot: ClusterSnapshot) -> bool:
    """Whether an unfinished pod of the namespace with such labels is bound to the node; our puller pods do not count.

    A pod that is being deleted counts until it is gone: its containers still run.
    """
    return any(
        key[0] == namespace and key not in snapshot.puller_pods and selector.matches(pod.labels)
        for key, pod in snapshot.pods_by_node.get(node_name, {}).items()
    )
