"""ImageLocality (plugins/imagelocality, 1.36: containers, init containers and image volumes)."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from msgspec import Struct

from prewarm.model.images import parse_reference
from prewarm.model.nodes import Node
from prewarm.model.pods import ContainerKind, PodShape
from prewarm.placement.arrays import MAX_NODE_SCORE, Ints, Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays

_MIB = 1024 * 1024
_MIN_THRESHOLD = 23 * _MIB
_MAX_CONTAINER_THRESHOLD = 1000 * _MIB
_LOOKS_A_NODE = 4
"""So many looks for each node are played at most: with more, there is one after every node anyway."""


class ExpectedImage(Struct, frozen=True):
    """An image that will be on some nodes by the time of scheduling: its size as nodes will report it, in bytes."""

    size_bytes: int
    nodes: frozenset[str] = frozenset()
    looks: int = 0
    """How often the scheduler looks while these nodes come to list it, one after the other. Its snapshot of a node
    keeps the number of nodes with the image as of its first look after the node's last change (backend/cache,
    NodeInfo.SnapshotConcrete), so the first ones count few; each replay draws when it looks."""
    without: frozenset[str] = frozenset()
    """Nodes that are played as if they did not list it yet."""


@lru_cache(maxsize=4096)
def normalized_name(image: str) -> str:
    """The name under which the scheduler looks for an image in node status: `:latest` added, nothing else."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"


@lru_cache(maxsize=4096)
def is_found(image: str) -> bool:
    """Whether the scheduler finds an image in node status under the name that a pod gives it.

    Nodes list whole names, tags and digests apart: a name without its registry, or with tag and digest, is never there.
    """
    try:
        reference = parse_reference(image)
    except ValueError:
        return False
    return str(reference) == normalized_name(image) and not (reference.tag and reference.digest)


def lists(node: Node, image: str) -> bool:
    """Whether a node's status has an image under the name by which the scheduler looks for it."""
    name = normalized_name(image)
    return any(name in status.names for status in node.images)


class ImageLocality:
    """The images of a pod on the nodes, and the score that follows from them.

    A new image is nowhere at first and scores nothing; it counts once nodes report it, which pods that landed (and
    pulls ahead) bring about.
    """

    def __init__(
        self, shape: PodShape, cluster: ClusterArrays, rows: int, expected: Mapping[str, ExpectedImage]
    ) -> None:
        uses: dict[str, int] = {}
        for container in shape.containers:
            name = normalized_name(container.image)
            uses[name] = uses.get(name, 0) + 1
        volumes = sum(container.kind is ContainerKind.IMAGE_VOLUME for container in shape.containers)
        self._ceiling = _MAX_CONTAINER_THRESHOLD * max(1, len(shape.containers) - volumes)
        whole = cluster.whole
        self._nodes = whole.count
        self._present: list[tuple[int, int, int, Mask, Ints | None]] = []
        """Of each image: size, containers that use it, nodes without a column that have it, who else does, and how many
        had it when a node listed it, where that is what counts."""
        reported = whole.reported(uses)
        for name, times in uses.items():
            coming, there = expected.get(name), reported.get(name)
            if there is None and coming is None:
                continue
            size = 0 if there is None else there.size_bytes
            holders = np.zeros(whole.count, dtype=np.bool_)
            if there is not None:
                holders[there.columns] = True
            if coming is not None:
                holders[_columns(coming.without, whole)] = False
                size = size or coming.size_bytes
                holders[_columns(coming.nodes, whole)] = True
            if size > 0:
                here = holders[cluster.columns]
                mask = np.repeat(here[np.newaxis], rows, axis=0)
                turns = _turns(coming, cluster, rows) if coming is not None and coming.looks else None
                self._present.append((size, times, int(holders.sum()) - int(here.sum()), mask, turns))

    def arrive(self, rows: Ints, columns: Ints) -> None:
        """All images of the pod, as far as their size is known, are now reported by these nodes."""
        for _, _, _, mask, _ in self._present:
            mask[rows, columns] = True

    def score(self) -> Scores | None:
        """Score per replay and node; None if no image is on any node."""
        total = None
        for size, times, elsewhere, mask, turns in self._present:
            spread = mask.sum(axis=1, keepdims=True) + elsewhere
            if turns is not None:
                spread = np.where(turns > 0, turns, spread)
            scaled = (size * (spread / self._nodes)).astype(np.int64) * times
            total = np.where(mask, scaled, 0) if total is None else total + np.where(mask, scaled, 0)
        if total is None or not total.any():
            return None
        clamped = np.clip(total, _MIN_THRESHOLD, self._ceiling)
        score: Ints = MAX_NODE_SCORE * (clamped - _MIN_THRESHOLD) // (self._ceiling - _MIN_THRESHOLD)
        return score.astype(np.float32)


def _columns(names: Iterable[str], whole: ClusterArrays) -> list[int]:
    return [whole.column[name] for name in names if name in whole.column]


def _turns(coming: ExpectedImage, cluster: ClusterArrays, rows: int) -> Ints:
    """By replay and node, how many list the image at the scheduler's next look once that node does; 0: not expected."""
    names = sorted(coming.nodes & cluster.whole.column.keys())
    random = np.random.default_rng(len(names))
    order = random.permuted(np.tile(np.arange(1, len(names) + 1, dtype=np.int64), (rows, 1)), axis=1)
    looks = np.sort(random.integers(1, len(names) + 1, (rows, min(coming.looks, _LOOKS_A_NODE * len(names)))))
    last = np.full((rows, 1), len(names), dtype=np.int64)
    seen = np.concatenate([looks, last], axis=1)
    turns: Ints = np.zeros((rows, cluster.whole.count), dtype=np.int64)
    columns = [cluster.whole.column[name] for name in names]
    for row in range(rows):
        turns[row, columns] = seen[row, np.searchsorted(seen[row], order[row])]
    return turns[:, cluster.columns]
