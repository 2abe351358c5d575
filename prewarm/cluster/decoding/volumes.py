"""PersistentVolumes and PersistentVolumeClaims: where a bound volume lets its pods run, nothing else."""

from sys import intern

from msgspec import Struct, field

from prewarm.cluster.decoding.affinity import WireNodeSelector
from prewarm.cluster.decoding.common import WireMeta, node_selector_term
from prewarm.cluster.decoding.problems import Report
from prewarm.model.volumes import ZONE_LABELS, Volume, VolumeClaim

_ZONE_DELIMITER = "__"
"""Between the zones of one label (component-helpers/storage/volume, LabelMultiZoneDelimiter)."""


class WireVolumeClaimSpec(Struct, rename="camel", gc=False):
    """v1.PersistentVolumeClaimSpec."""

    volume_name: str = ""


class WireVolumeClaim(Struct, gc=False):
    """v1.PersistentVolumeClaim."""

    metadata: WireMeta
    spec: WireVolumeClaimSpec = field(default_factory=WireVolumeClaimSpec)


class WireVolumeNodeAffinity(Struct, gc=False):
    """v1.VolumeNodeAffinity."""

    required: WireNodeSelector | None = None


class WireClaimReference(Struct, gc=False):
    """v1.ObjectReference of a claim."""

    namespace: str = ""


class WireVolumeSource(Struct, rename="camel", gc=False):
    """v1.CSIPersistentVolumeSource."""

    driver: str = ""
    volume_handle: str = ""


class WireVolumeSpec(Struct, rename="camel", gc=False):
    """v1.PersistentVolumeSpec."""

    csi: WireVolumeSource | None = None
    node_affinity: WireVolumeNodeAffinity | None = None
    claim_ref: WireClaimReference | None = None


class WireVolume(Struct, gc=False):
    """v1.PersistentVolume."""

    metadata: WireMeta
    spec: WireVolumeSpec = field(default_factory=WireVolumeSpec)


def volume_claim(wire: WireVolumeClaim, _report: Report) -> VolumeClaim:
    """A claim and the volume that it is bound to."""
    return VolumeClaim(intern(wire.metadata.namespace), wire.metadata.name, wire.spec.volume_name)


def volume(wire: WireVolume, report: Report) -> Volume:
    """A volume's node affinity, zones and claim."""
    affinity = wire.spec.node_affinity
    required = affinity.required if affinity is not None else None
    labels = wire.metadata.labels or {}
    return Volume(
        wire.metadata.name,
        node_terms=None
        if required is None
        else tuple(node_selector_term(term, report) for term in required.node_selector_terms or ()),
        zones=tuple((key, zones) for key in ZONE_LABELS if (zones := _zones(labels.get(key, "")))),
        claim_namespace=intern(wire.spec.claim_ref.namespace) if wire.spec.claim_ref is not None else "",
        driver=intern(wire.spec.csi.driver) if wire.spec.csi is not None else "",
        handle=wire.spec.csi.volume_handle if wire.spec.csi is not None else "",
    )


def _zones(text: str) -> tuple[str, ...]:
    """The zones of a label; none if one of them is empty, since the scheduler then passes the label over."""
    zones = {zone.strip() for zone in text.split(_ZONE_DELIMITER)}
    return () if "" in zones else tuple(sorted(zones))
