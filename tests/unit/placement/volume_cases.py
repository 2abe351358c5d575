"""Bound volumes and the nodes that the real kube-scheduler 1.36 takes for their pods (e2e/test_volume_filters.py)."""

from collections.abc import Mapping

from msgspec import Struct

from prewarm.model.selectors import Operator, Requirement

HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"

NODES: Mapping[str, Mapping[str, str]] = {
    "a": {HOST: "a", ZONE: "z1", REGION: "r1", "disk": "ssd"},
    "b": {HOST: "b", OLD_ZONE: "z1"},
    "c": {HOST: "c", ZONE: "z2", REGION: "r1", "disk": "ssd"},
    "d": {HOST: "d", "rank": "7"},
}
"""Labels of the nodes."""


class VolumeCase(Struct, frozen=True):
    """Terms (ORed) of a volume's node affinity, its labels, and where its pods fit."""

    name: str
    fits: str
    terms: tuple[tuple[Requirement, ...], ...] = ()
    labels: Mapping[str, str] = {}


def _in(key: str, *values: str) -> Requirement:
    return Requirement(key, Operator.IN, values)


CASES = (
    VolumeCase("free", "abcd"),
    VolumeCase("local", "b", ((_in(HOST, "b"),),)),
    VolumeCase("two-hosts", "bd", ((_in(HOST, "b", "d"),),)),
    VolumeCase("either-term", "ad", ((_in(HOST, "a"),), (Requirement("rank", Operator.GT, ("5",)),))),
    VolumeCase("both-requirements", "c", ((_in("disk", "ssd"), _in(ZONE, "z2")),)),
    VolumeCase("absent-label", "bd", ((Requirement("disk", Operator.DOES_NOT_EXIST),),)),
    VolumeCase("gone-node", "", ((_in(HOST, "gone"),),)),
    VolumeCase("zone", "ad", labels={ZONE: "z1"}),
    VolumeCase("old-zone", "abd", labels={OLD_ZONE: "z1"}),
    VolumeCase("two-zones", "acd", labels={ZONE: "z1__z2"}),
    VolumeCase("region", "acd", labels={REGION: "r1"}),
    VolumeCase("zone-and-region", "cd", labels={ZONE: "z2", REGION: "r1"}),
    VolumeCase("empty-zone", "abcd", labels={ZONE: "z1____z2"}),
    VolumeCase("zone-and-terms", "d", ((_in(HOST, "c", "d"),),), {ZONE: "z1"}),
)
