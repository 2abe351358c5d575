"""PersistentVolumes and their claims, as far as a bound volume decides where its pods can run."""

from collections.abc import Mapping

from msgspec import Struct

from prewarm.model.nodes import Node
from prewarm.model.selectors import NodeSelectorTerm

_REGION = "topology.kubernetes.io/region"
_ZONE = "topology.kubernetes.io/zone"
_SUCCESSORS: Mapping[str, str] = {
    "failure-domain.beta.kubernetes.io/region": _REGION,
    "failure-domain.beta.kubernetes.io/zone": _ZONE,
}
ZONE_LABELS = (*_SUCCESSORS, _REGION, _ZONE)
"""Labels of volumes and nodes that VolumeZone compares."""


class VolumeClaim(Struct, frozen=True):
    """A PersistentVolumeClaim; `volume_name` is "" until it is bound."""

    namespace: str
    name: str
    volume_name: str = ""


class Volume(Struct, frozen=True):
    """A PersistentVolume's say in where pods run; equal for all volumes of one node or zone but for the name."""

    name: str
    node_terms: tuple[NodeSelectorTerm, ...] | None = None
    """spec.nodeAffinity.required, ORed; None = no requirement."""
    zones: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """ZONE_LABELS of the volume, and the values that each allows."""
    claim_namespace: str = ""
    """Of the claim that it is bound to or reserved for."""
    driver: str = ""
    """spec.csi.driver; "" for volumes that no CSI driver attaches, which no limit of a node counts."""
    handle: str = ""
    """spec.csi.volumeHandle: two volumes of one handle are attached once."""


class AttachLimits(Struct, frozen=True):
    """How many volumes each CSI driver attaches to a node (CSINode.spec.drivers[].allocatable.count)."""

    drivers: tuple[tuple[str, int], ...] = ()


def is_bindable(terms: tuple[NodeSelectorTerm, ...] | None, node: Node) -> bool:
    """Whether a node meets a bound volume's node affinity (plugins/volumebinding, FindPodVolumes)."""
    return terms is None or any(term.matches(node.name, node.labels) for term in terms)


def is_in_zone(zones: tuple[tuple[str, tuple[str, ...]], ...], node: Node) -> bool:
    """Whether a node's zone and region are among a volume's (plugins/volumezone, Filter).

    A node without any such label is in no zone, so that no volume is out of its reach.
    """
    labels = node.labels
    if not any(label in labels for label in ZONE_LABELS):
        return True
    return all(labels.get(key, labels.get(_SUCCESSORS.get(key, key))) in values for key, values in zones)
