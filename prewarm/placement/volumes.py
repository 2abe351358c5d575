"""VolumeBinding and VolumeZone for bound claims (plugins/volumebinding, plugins/volumezone)."""

from collections.abc import Iterable
from functools import partial

import numpy as np
from msgspec import Struct

from prewarm.model.plans import RejectReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.volumes import is_bindable, is_in_zone
from prewarm.placement.arrays import Mask
from prewarm.placement.cluster_arrays import ClusterArrays


class Reach(Struct, frozen=True):
    """Which nodes can use some volumes, by either filter."""

    bindable: Mask
    in_zone: Mask

    @property
    def both(self) -> Mask:
        """Nodes that pass both filters."""
        return self.bindable & self.in_zone

    def with_either(self, other: "Reach") -> "Reach":
        """Nodes that can use these volumes or others."""
        return Reach(self.bindable | other.bindable, self.in_zone | other.in_zone)

    def checks(self) -> list[tuple[RejectReason, Mask]]:
        """The filters in the scheduler's order, and where they pass."""
        return [(RejectReason.VOLUME_BINDING, self.bindable), (RejectReason.VOLUME_ZONE, self.in_zone)]


def reach(namespace: str, claims: Iterable[str], snapshot: ClusterSnapshot, cluster: ClusterArrays) -> Reach | None:
    """Where the bound volumes of some claims can be used; None if none of them is bound."""
    volumes = snapshot.bound_volumes(namespace, claims)
    if not volumes:
        return None
    bindable = np.ones(cluster.count, dtype=np.bool_)
    in_zone = bindable.copy()
    for terms in {volume.node_terms for volume in volumes} - {None}:
        bindable &= cluster.known_mask(("volume", terms), partial(cluster.mask, partial(is_bindable, terms)))
    for zones in {volume.zones for volume in volumes} - {()}:
        in_zone &= cluster.known_mask(("zones", zones), partial(cluster.mask, partial(is_in_zone, zones)))
    return Reach(bindable, in_zone)
