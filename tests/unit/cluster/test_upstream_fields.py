"""Fields of OpenKruise, Flagger and Flux are spelt as their Go types spell them; their controllers are played in e2e.

`tests/data/upstream_fields.json` has the JSON names of these types, by module and version.
"""

import json
from pathlib import Path

import msgspec
import pytest

from prewarm.cluster.decoding import flagger, flux, kruise
from prewarm.model.progressive import FlaggerPhase

UPSTREAM = json.loads((Path(__file__).parents[2] / "data" / "upstream_fields.json").read_text(encoding="utf-8"))
TYPES = {name: frozenset(fields) for module in UPSTREAM.values() for name, fields in module.items()}
STATUSES = ("CloneSetStatus", "StatefulSetStatus", "DaemonSetStatus")
ROLLING = ("RollingUpdateStatefulSetStrategy", "RollingUpdateDaemonSet", "CloneSetUpdateStrategy")
DROPPED = {"latestImage"}
"""Of v1beta1, which Flux has left behind: clusters that were not upgraded have it."""


@pytest.mark.parametrize(
    ("wire", "types"),
    [
        (kruise.WireKruiseSpec, ("CloneSetSpec", "StatefulSetSpec", "DaemonSetSpec")),
        (kruise.WireKruiseStrategy, ("StatefulSetUpdateStrategy", "DaemonSetUpdateStrategy", *ROLLING)),
        (kruise.WireKruiseRolling, ("StatefulSetUpdateStrategy", *ROLLING)),
        (kruise.WireKruiseStatus, STATUSES),
        (kruise.WireUnordered, ("UnorderedUpdateStrategy",)),
        (kruise.WirePriority, ("UpdatePriorityStrategy",)),
        (kruise.WireWeightTerm, ("UpdatePriorityWeightTerm",)),
        (kruise.WireOrderTerm, ("UpdatePriorityOrderTerm",)),
        (kruise.WireScatterTerm, ("UpdateScatterTerm",)),
        (flagger.WireCanarySpec, ("CanarySpec",)),
        (flagger.WireTarget, ("LocalObjectReference",)),
        (flagger.WireAnalysis, ("CanaryAnalysis",)),
        (flagger.WireCanaryStatus, ("CanaryStatus",)),
        (flux.WireImagePolicyStatus, ("ImagePolicyStatus",)),
        (flux.WireImageRef, ("ImageRef",)),
    ],
)
def test_every_field_that_is_read_is_one_of_theirs(wire: type[msgspec.Struct], types: tuple[str, ...]) -> None:
    theirs = frozenset[str]().union(*(TYPES[name] for name in types))
    ours = {field.encode_name for field in msgspec.structs.fields(wire)}
    assert ours - theirs - DROPPED == set()


def test_every_phase_of_a_canary_is_known() -> None:
    assert TYPES["CanaryPhase"] <= {phase.value for phase in FlaggerPhase}
