"""A gate that cannot be opened is tried again, with a pause."""

from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.controller.gatekeeper import AGAIN_SECONDS, Gatekeeper
from prewarm.model.intents import OpenGate
from tests.support.clusters import ENABLED, cluster, deployment, node, template


def test_a_patch_without_effect_is_repeated_with_a_pause() -> None:
    annotations = {**ENABLED, ANNOTATION_GATE_HELD: "damaged"}
    workload = deployment(template("registry.test/web:v2"), annotations=annotations, paused=True, resource_version="7")
    snapshot = cluster([node("n1")], workloads=[workload])
    keeper = Gatekeeper()
    assert [type(intent) for intent in keeper.look(snapshot, None)] == [OpenGate]
    assert keeper.look(snapshot, None) == ()
    later = replace(snapshot, taken_at=snapshot.taken_at + AGAIN_SECONDS)
    assert [type(intent) for intent in keeper.look(later, None)] == [OpenGate]
