"""A gate that cannot be opened is tried again, and told of once."""

from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.controller.gatekeeper import AGAIN_SECONDS, Gatekeeper
from prewarm.model.intents import OpenGate, RecordEvent
from tests.support.clusters import ENABLED, cluster, deployment, node, template


def test_a_patch_without_effect_is_repeated_but_neither_counted_nor_told_again() -> None:
    """Where the server refuses the patch, no Event every two seconds says that the gate was opened."""
    annotations = {**ENABLED, ANNOTATION_GATE_HELD: "damaged"}
    workload = deployment(template("registry.test/web:v2"), annotations=annotations, paused=True, resource_version="7")
    snapshot = cluster([node("n1")], workloads=[workload])
    keeper = Gatekeeper()
    assert [type(intent) for intent in keeper.look(snapshot, None)] == [OpenGate, RecordEvent]
    assert keeper.look(snapshot, None) == ()
    later = replace(snapshot, taken_at=snapshot.taken_at + AGAIN_SECONDS)
    assert [type(intent) for intent in keeper.look(later, None)] == [OpenGate]
    assert keeper.opened.total() == 1
