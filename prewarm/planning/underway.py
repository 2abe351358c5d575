"""What did we pull already, or are pulling? Pulls cannot be taken back, so later plans start from them."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec
from msgspec import Struct

from prewarm.api.names import ANNOTATION_IMAGES
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, PresentImage
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot

RECENT_SECONDS = 3600.0
"""How long an unused image of ours counts against maxOverprovision: that bounds the nodes warmed anew in an hour."""


class Underway(Struct, frozen=True):
    """Nodes by what we did there for some images."""

    pulling: frozenset[str]
    """A puller pod for one of the images runs there."""
    pulled: frozenset[str]
    """One of the images came by our pull within RECENT_SECONDS."""
    unused: frozenset[str]
    """Of those, where no container of a workload used it yet."""
    since: Mapping[str, float] = {}
    """When it came, or since when it is being pulled; the latest of the images (Unix seconds)."""

    @property
    def ours(self) -> frozenset[str]:
        """Nodes that stay part of the plan, wherever predictions move."""
        return self.pulling | self.pulled

    @property
    def idle(self) -> frozenset[str]:
        """Nodes whose pull has not paid off yet."""
        return self.pulling | self.unused


class Done:
    """What we did on one snapshot, by image: records and puller pods are read once, however many demands ask."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot

    def underway(self, images: Iterable[str]) -> Underway:
        """What we have done for any of the images, by puller pods and NodeImage records of the nodes as they are."""
        since: dict[str, float] = {}
        pulling: set[str] = set()
        pulled: set[str] = set()
        unused: set[str] = set()
        for image in dict.fromkeys(canonical(image) for image in images):
            for name, entry in self._pulls.get(image, ()):
                since[name] = max(entry.since, since.get(name, 0.0))
                pulled.add(name)
                if entry.used_at is None:
                    unused.add(name)
            for pod in self._pullers.get(image, ()):
                since[pod.node_name] = max(pod.created_at, since.get(pod.node_name, 0.0))
                pulling.add(pod.node_name)
        return Underway(frozenset(pulling), frozenset(pulled), frozenset(unused), since)

    @cached_property
    def _pulls(self) -> Mapping[str, list[tuple[str, PresentImage]]]:
        """Recent pulls of ours with their nodes, by canonical image."""
        found: dict[str, list[tuple[str, PresentImage]]] = {}
        earliest = self._snapshot.taken_at - RECENT_SECONDS
        for name, record in self._snapshot.node_images.items():
            node = self._snapshot.nodes.get(name)
            if node is None or node.uid != record.node_uid or node.boot_id != record.boot_id:
                continue
            for entry in record.images:
                if entry.evidence is Evidence.OUR_PULL and entry.since > earliest:
                    found.setdefault(entry.image, []).append((name, entry))
        return found

    @cached_property
    def _pullers(self) -> Mapping[str, list[Pod]]:
        """Unfinished puller pods by canonical image."""
        found: dict[str, list[Pod]] = {}
        for pod in self._snapshot.puller_pods.values():
            if pod.node_name in self._snapshot.nodes and not pod.finished:
                for image in pulled_images(pod):
                    found.setdefault(image, []).append(pod)
        return found


def pulled_images(puller: Pod) -> frozenset[str]:
    """Canonical spellings of the images that a puller pod pulls; empty if its annotation cannot be read."""
    try:
        images = msgspec.json.decode(puller.annotations.get(ANNOTATION_IMAGES, "[]"), type=list[str])
    except (msgspec.DecodeError, RecursionError):
        return frozenset()
    return frozenset(canonical(image) for image in images)
