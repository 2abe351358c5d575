"""Which images do ImageCaches ask for on a node? What others brought is worth remembering there alone."""

from collections.abc import Mapping

from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import canonical
from prewarm.model.meant import selects
from prewarm.model.nodes import Node
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey

_NOTHING: frozenset[str] = frozenset()


class _Chosen:
    """Images of all entries that choose their nodes in the same way."""

    def __init__(self, namespace: str, rule: ImageList) -> None:
        self.namespace = namespace
        self.rule = rule
        self.names = None if rule.node_names is None else frozenset(rule.node_names)
        self.images: set[str] = set()

    def means(self, node: Node, snapshot: ClusterSnapshot) -> bool:
        if self.names is not None and node.name not in self.names:
            return False
        return selects(self.rule, self.namespace, node, snapshot)


class Wanted:
    """Images (canonical) that ImageCaches ask for, to be asked node by node.

    What caches with plain lists of names ask for, as the planner's do, is looked up; selectors are tried.
    """

    def __init__(self, caches: Mapping[ObjectKey, ImageCache]) -> None:
        self.follows_pods = False
        """Whether the answer for a node may change because a pod came or went."""
        everywhere: set[str] = set()
        named: dict[str, set[str]] = {}
        chosen: dict[tuple[str, ImageList], _Chosen] = {}
        for cache in caches.values():
            for entry in cache.lists:
                images = [canonical(image) for image in entry.images]
                if not images:
                    continue
                if entry.node_selector or entry.node_selector_terms or entry.pod_selector is not None:
                    namespace = cache.namespace if entry.pod_selector is not None else ""
                    rule = replace(entry, images=())
                    known = chosen.setdefault((namespace, rule), _Chosen(namespace, rule))
                    known.images.update(images)
                    self.follows_pods = self.follows_pods or entry.pod_selector is not None
                elif entry.node_names is None:
                    everywhere.update(images)
                else:
                    for name in entry.node_names:
                        named.setdefault(name, set()).update(images)
        self.everywhere = frozenset(everywhere)
        """On every node."""
        self.named = {name: frozenset(images) for name, images in named.items()}
        """By node, by caches with plain lists of names."""
        self._chosen = tuple(chosen.values())
        self._unions: dict[tuple[int, ...], frozenset[str]] = {(): self.everywhere}

    def differs_on(self, before: "Wanted") -> frozenset[str] | None:
        """Names of nodes for which the answer is another one than before, if they and their pods are the same.

        None where that may be any.
        """
        if self is before:
            return _NOTHING
        if self.everywhere != before.everywhere or self.rules() != before.rules():
            return None
        names = self.named.keys() | before.named.keys()
        return frozenset(name for name in names if self.named.get(name) != before.named.get(name))

    def rules(self) -> list[tuple[str, ImageList, frozenset[str]]]:
        """How selectors choose nodes, each with the namespace of its pods and its images."""
        return [(chosen.namespace, chosen.rule, frozenset(chosen.images)) for chosen in self._chosen]

    def on(self, node: Node, snapshot: ClusterSnapshot) -> frozenset[str]:
        """Images that some ImageCache asks for on a node; nodes of which the same is asked share one value."""
        matching = tuple(i for i, chosen in enumerate(self._chosen) if chosen.means(node, snapshot))
        asked = self._unions.get(matching)
        if asked is None:
            asked = self._unions[matching] = self.everywhere.union(*(self._chosen[i].images for i in matching))
        named = self.named.get(node.name, _NOTHING)
        return asked | named if named else asked
