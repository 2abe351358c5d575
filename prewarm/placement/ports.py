"""NodePorts (plugins/nodeports): two pods of a node cannot take the same port of it."""

import numpy as np

from prewarm.model.pods import HostPort
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints, Mask
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.incoming import IncomingPod, PodView

_ANY = frozenset({"", "0.0.0.0"})  # noqa: S104 - Kubernetes' own spelling of "every address"


def _clash(one: HostPort, other: HostPort) -> bool:
    if one.port != other.port or (one.protocol or "TCP") != (other.protocol or "TCP"):
        return False
    return one.host_ip in _ANY or other.host_ip in _ANY or one.host_ip == other.host_ip


class HostPorts:
    """How many pods stand in the way on each node; only made for pods that want host ports."""

    def __init__(self, pod: IncomingPod, snapshot: ClusterSnapshot, cluster: ClusterArrays, rows: int) -> None:
        self._wanted = pod.shape.host_ports
        counts = np.zeros(cluster.count, dtype=np.int64)
        for node_name, pods in snapshot.pods_by_node.items():
            column = cluster.column.get(node_name)
            if column is not None:
                counts[column] = sum(self.effect(other) for other in pods.values())
        self._counts: Ints = np.repeat(counts[np.newaxis], rows, axis=0)

    def effect(self, other: PodView) -> int:
        """1 if the other pod takes a port that this one wants."""
        return int(any(_clash(want, has) for want in self._wanted for has in other.shape.host_ports))

    def apply(self, effect: int, rows: Ints, columns: Ints, sign: int) -> None:
        """A pod with this effect has landed on (sign 1) or left (-1) these cells."""
        self._counts[rows, columns] += sign * effect

    def taken(self, row: int, column: int) -> int:
        """Pods in the way in one cell."""
        return int(self._counts[row, column])

    def free(self) -> Mask:
        """Where no wanted port is taken."""
        free: Mask = self._counts <= 0
        return free
