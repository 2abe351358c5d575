"""A snapshot's nodes as arrays, in the order of their names: the columns of every replay."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np
from msgspec import Struct

from prewarm.model.nodes import Node
from prewarm.model.pods import PodShape, Taint
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage
from prewarm.placement.arrays import Ints, Mask

_ZONE_LABELS = ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone")
_REGION_LABELS = ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region")


class Topology:
    """The domains of one topology key: `domain` holds an index per node, -1 where the label is missing."""

    def __init__(self, key: str, nodes: Iterable[Node]) -> None:
        indices: dict[str, int] = {}
        domains: list[int] = []
        for node in nodes:
            value = node.labels.get(key)
            domains.append(-1 if value is None else indices.setdefault(value, len(indices)))
        self.domain: Ints = np.array(domains, dtype=np.int64)
        self.size = len(indices)
        self.labelled: Mask = self.domain >= 0
        self._indices = indices

    def having(self, value: str) -> Mask:
        """Nodes whose label has this value."""
        index = self._indices.get(value)
        return np.zeros(len(self.domain), dtype=np.bool_) if index is None else self.domain == index


class ReportedImage(Struct, frozen=True):
    """An image in status.images: its size in bytes and the columns of the nodes that report it."""

    size_bytes: int
    columns: list[int]


class ClusterArrays:
    """What filters and scores read of the nodes, one column a node; what pods take of them is in Usage.

    Attributes:
        whole: the arrays of all nodes of the cluster; others have columns for a part of them.
        columns: the columns of these nodes in `whole`.
    """

    def __init__(
        self, nodes: Mapping[str, Node], whole: "ClusterArrays | None" = None, columns: Ints | None = None
    ) -> None:
        self.source = nodes
        self.whole: ClusterArrays = whole or self
        self.names = tuple(sorted(nodes)) if whole is None or columns is None else whole.names_at(columns)
        self.nodes = tuple(nodes[name] for name in self.names)
        self.column = {name: column for column, name in enumerate(self.names)}
        self.count = len(self.names)
        self.columns: Ints = np.arange(self.count, dtype=np.int64) if columns is None else columns
        amounts = [(n.allocatable.milli_cpu, n.allocatable.memory, n.allocatable.ephemeral_storage) for n in self.nodes]
        allocatable = np.array(amounts, dtype=np.int64).reshape(self.count, 3)
        self.milli_cpu: Ints = allocatable[:, 0].copy()
        self.memory: Ints = allocatable[:, 1].copy()
        self.ephemeral_storage: Ints = allocatable[:, 2].copy()
        self.max_pods: Ints = np.array([node.max_pods for node in self.nodes], dtype=np.int64)
        self._topologies: dict[str, Topology] = {}
        self._reported: dict[str, ReportedImage] = {}
        self._looked_for: set[str] = set()
        self._all_reported = False
        self._masks: dict[object, Mask] = {}
        self._counts: dict[object, tuple[int, int]] = {}

    def names_at(self, columns: Ints) -> tuple[str, ...]:
        """Names of the nodes of some columns."""
        return tuple(self.names[column] for column in columns.tolist())

    def part(self, columns: Ints) -> "ClusterArrays":
        """The arrays of some nodes, given by increasing columns of these."""
        return ClusterArrays(self.source, self.whole, self.columns[columns])

    def topology(self, key: str) -> Topology:
        """The domains of a topology key."""
        if key not in self._topologies:
            self._topologies[key] = Topology(key, self.nodes)
        return self._topologies[key]

    def extended(self, name: str) -> Ints:
        """Allocatable pieces of an extended resource."""
        return np.array([dict(node.allocatable.extended).get(name, 0) for node in self.nodes], dtype=np.int64)

    def mask(self, predicate: Callable[[Node], bool]) -> Mask:
        """The nodes for which a predicate holds."""
        return np.fromiter((predicate(node) for node in self.nodes), dtype=np.bool_, count=self.count)

    def known_mask(self, key: object, find: Callable[[], Mask]) -> Mask:
        """The nodes that `key` stands for; found once, not to be written to."""
        if key not in self._masks:
            self._masks[key] = find()
        return self._masks[key]

    def known_counts(self, key: object, count: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        """Two numbers of nodes that `key` stands for; counted once."""
        if key not in self._counts:
            self._counts[key] = count()
        return self._counts[key]

    def reported(self, names: Iterable[str]) -> dict[str, ReportedImage]:
        """Those of the images that some node reports, by exact name; the first node by name says the size.

        What one pod asks for is looked up by itself, since reading all names takes twice as long; from the second
        question on, all are known.
        """
        wanted = frozenset(names)
        if not wanted <= self._looked_for and not self._all_reported:
            self._all_reported = bool(self._looked_for)
            self._reported = {}
            self._read_images(None if self._all_reported else wanted)
            self._looked_for |= wanted
        return {name: self._reported[name] for name in wanted if name in self._reported}

    def _read_images(self, only: frozenset[str] | None) -> None:
        found: dict[str, tuple[int, list[int]]] = {}
        for column, node in enumerate(self.nodes):
            for status in node.images:
                for name in status.names:
                    if only is None or name in only:
                        columns = found.setdefault(name, (status.size_bytes, []))[1]
                        if not columns or columns[-1] != column:
                            columns.append(column)
        self._reported = {name: ReportedImage(size, columns) for name, (size, columns) in found.items()}

    @cached_property
    def cordoned(self) -> Mask:
        """Nodes with spec.unschedulable."""
        return self.mask(lambda node: node.unschedulable)

    @cached_property
    def taints(self) -> tuple[tuple[tuple[Taint, ...], ...], Ints]:
        """The different sets of taints, and which of them each node has: nodes of a pool share theirs."""
        kinds: dict[tuple[Taint, ...], int] = {}
        index = np.array([kinds.setdefault(node.taints, len(kinds)) for node in self.nodes], dtype=np.int64)
        return tuple(kinds), index

    @cached_property
    def scheduler_zones(self) -> list[Ints]:
        """Columns by region and zone, by which the scheduler's cache interleaves nodes (node_tree.go)."""
        zones: dict[tuple[str, str], list[int]] = {}
        for column, node in enumerate(self.nodes):
            zones.setdefault((_first(node, _REGION_LABELS), _first(node, _ZONE_LABELS)), []).append(column)
        return [np.array(columns, dtype=np.int64) for _, columns in sorted(zones.items())]


class _Latest:
    """The arrays of the last snapshot: its successors share its nodes until one of them changes."""

    arrays: ClusterArrays | None = None


def cluster_arrays(snapshot: ClusterSnapshot) -> ClusterArrays:
    """The arrays of a snapshot's nodes; those of the same mapping, which never changes, are made once.

    They take a few milliseconds per 1,000 nodes, most of it for the names of images.
    """
    latest = _Latest.arrays
    if latest is None or latest.source is not snapshot.nodes:
        latest = _Latest.arrays = ClusterArrays(snapshot.nodes)
    return latest


def _first(node: Node, keys: tuple[str, ...]) -> str:
    return next((node.labels[key] for key in keys if key in node.labels), "")


def _lasting(snapshot: ClusterSnapshot) -> Mapping[str, NodeUsage]:
    """What pods take without our pullers, which are gone when the pods come for which they pull.

    Their few millicores move a score by a point, and points decide between nodes: with them, a node that is being
    warmed would look worse for that alone.
    """
    lasting: dict[str, NodeUsage] = {}
    for pod in snapshot.puller_pods.values():
        if pod.node_name in snapshot.usage and not pod.finished:
            usage = lasting.get(pod.node_name) or snapshot.usage[pod.node_name]
            lasting[pod.node_name] = usage.plus(pod, -1)
    return {**snapshot.usage, **lasting} if lasting else snapshot.usage


class Usage:
    """What pods take on each node, one row a replay: rows differ as soon as pods have landed in them."""

    def __init__(self, snapshot: ClusterSnapshot, cluster: ClusterArrays, replays: int) -> None:
        lasting = _lasting(snapshot)
        empty = NodeUsage()
        self._sums = [lasting.get(name, empty) for name in cluster.names]
        sums = [
            (u.milli_cpu, u.memory, u.ephemeral_storage, u.scoring_milli_cpu, u.scoring_memory, u.pods)
            for u in self._sums
        ]
        table = np.array(sums, dtype=np.int64).reshape(cluster.count, 6).T
        self._rows = replays
        self._table = np.repeat(table[:, np.newaxis], replays, axis=1)
        self._cells = self._table.reshape(6, -1)
        """The same, with one index for row and column: numpy takes a quarter of the time for it."""
        self._extended: dict[str, Ints] = {}
        self._alike = True

    @property
    def different_rows(self) -> int:
        """Number of rows that need be looked at for what holds now: the first says all until a pod lands or leaves."""
        return min(1, self._rows) if self._alike else self._rows

    @property
    def pods(self) -> Ints:
        """Number of pods."""
        pods: Ints = self._table[5]
        return pods

    def at(self, rows: Ints | slice | int, columns: Ints | slice | int) -> Ints:
        """CPU, memory, ephemeral storage, CPU and memory as scores count them, and pods, of some cells."""
        if isinstance(rows, np.ndarray) and isinstance(columns, np.ndarray):
            some: Ints = self._cells.take(rows * self._table.shape[2] + columns, axis=1)
            return some
        cells: Ints = self._table[:, rows, columns]
        return cells

    def extended(self, name: str) -> Ints:
        """Pieces of an extended resource taken."""
        if name not in self._extended:
            taken = np.array([dict(usage.extended).get(name, 0) for usage in self._sums], dtype=np.int64)
            self._extended[name] = np.repeat(taken[np.newaxis], self._rows, axis=0)
        return self._extended[name]

    def add(self, shape: PodShape, rows: Ints, columns: Ints, sign: int = 1) -> None:
        """Add (or take away) one pod per row, at its column."""
        self._alike = False
        request = shape.requests
        amounts = (request.milli_cpu, request.memory, request.ephemeral_storage)
        each = np.array((*amounts, shape.scoring_milli_cpu, shape.scoring_memory, 1), dtype=np.int64)
        at = rows * self._table.shape[2] + columns
        self._cells[:, at] = self._cells.take(at, axis=1) + sign * each[:, np.newaxis]
        for name, amount in request.extended:
            self.extended(name)[rows, columns] += sign * amount
