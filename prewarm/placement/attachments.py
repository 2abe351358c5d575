"""NodeVolumeLimits (plugins/nodevolumelimits, 1.36): a CSI driver attaches only so many volumes to a node.

Counted are the bound volumes of pods on the node, each once. Not counted: attachments that outlive their pods by a few
seconds, volumes of drivers that replaced one of Kubernetes' own, and claims that are not bound yet.
"""

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import Ints, Mask
from prewarm.placement.cluster_arrays import ClusterArrays

AttachedVolume = tuple[str, str]
"""Driver and volume handle."""
_NO_LIMIT = 2**31


class Attachments:
    """Volumes on every node that has a limit, kept true as pods land and leave; one row a replay."""

    def __init__(self, snapshot: ClusterSnapshot, cluster: ClusterArrays, rows: int) -> None:
        self._snapshot = snapshot
        self._rows = rows
        self._limits: dict[str, Ints] = {}
        for name, limits in snapshot.attach_limits.items():
            column = cluster.column.get(name)
            for driver, number in limits.drivers if column is not None else ():
                known = self._limits.setdefault(driver, np.full(cluster.count, _NO_LIMIT, dtype=np.int64))
                known[column] = number
        self._count = cluster.count
        self._holders: dict[AttachedVolume, dict[int, int]] = {}
        """Pods that use a volume at the start, by column."""
        self._moved: dict[AttachedVolume, NDArray[np.int16]] = {}
        """The same of volumes that came or went, per replay."""
        self._used: dict[str, Ints] = {}
        if self._limits:
            self._read(snapshot, cluster)

    def _read(self, snapshot: ClusterSnapshot, cluster: ClusterArrays) -> None:
        used = {driver: np.zeros(self._count, dtype=np.int64) for driver in self._limits}
        for name, column in cluster.column.items():
            if name not in snapshot.attach_limits:
                continue
            for pod in snapshot.pods_by_node.get(name, {}).values():
                for volume in self.volumes(pod.namespace, pod.shape.volume_claims):
                    holders = self._holders.setdefault(volume, {})
                    used[volume[0]][column] += column not in holders
                    holders[column] = holders.get(column, 0) + 1
        self._used = {driver: np.repeat(row[np.newaxis], self._rows, axis=0) for driver, row in used.items()}

    def volumes(self, namespace: str, claims: Collection[str]) -> tuple[AttachedVolume, ...]:
        """The volumes of some claims that some node limits, each once."""
        if not self._limits or not claims:
            return ()
        bound = self._snapshot.bound_volumes(namespace, claims)
        found = ((volume.driver, volume.handle) for volume in bound if volume.driver in self._limits and volume.handle)
        return tuple(dict.fromkeys(found))

    def allowed(self, volumes: Iterable[AttachedVolume]) -> Mask | None:
        """Where a pod with these volumes would not exceed a limit; None if none of them is limited.

        What is attached already needs no place.
        """
        fresh: dict[str, Ints] = {}
        for volume in volumes:
            new = (self._present(volume) == 0).astype(np.int64)
            fresh[volume[0]] = fresh[volume[0]] + new if volume[0] in fresh else new
        allowed = None
        for driver, new in fresh.items():
            within: Mask = (new == 0) | (self._used[driver] + new <= self._limits[driver])
            allowed = within if allowed is None else allowed & within
        return allowed

    def _present(self, volume: AttachedVolume) -> NDArray[np.int16]:
        """Pods that use a volume, per replay and node."""
        if volume not in self._moved:
            row = np.zeros(self._count, dtype=np.int16)
            for column, number in self._holders.get(volume, {}).items():
                row[column] = number
            self._moved[volume] = np.repeat(row[np.newaxis], self._rows, axis=0)
        return self._moved[volume]

    def move(self, volumes: Iterable[AttachedVolume], rows: Ints, columns: Ints, sign: int) -> None:
        """A pod with these volumes has landed on (sign 1) or left (-1) these cells."""
        for volume in volumes:
            present = self._present(volume)
            before = present[rows, columns] > 0
            present[rows, columns] += sign
            self._used[volume[0]][rows, columns] += (present[rows, columns] > 0).astype(np.int64) - before
