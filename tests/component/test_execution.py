"""Trouble with writes is told when it begins, not at each try."""

import pytest
from structlog.testing import capture_logs

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import Writer
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.model.intents import (
    DEPLOYMENTS,
    EVENTS,
    IMAGE_CACHES,
    NODE_IMAGES,
    PODS,
    Apply,
    Create,
    OpenGate,
    RecordEvent,
)
from tests.support.fake_api_server import FakeApiServer, Refuse
from tests.support.mirroring import connected

FORBIDDEN = Refuse(403, "Forbidden", "nodeimages is forbidden")


async def test_a_write_that_is_refused_again_and_again_is_one_warning() -> None:
    record = Apply(NODE_IMAGES, "", "node-a", {"metadata": {"name": "node-a"}})
    metrics = Metrics(version="test")
    async with FakeApiServer.running() as server, connected(server) as client:
        store = Store()
        execution = Execution(Writer(client), store, feeds(store), metrics)
        server.fail_next("patch", NODE_IMAGES, FORBIDDEN, FORBIDDEN, FORBIDDEN)
        with capture_logs() as lines:
            for _ in range(3):
                await execution.execute([record])
            await execution.execute([record])
            server.fail_next("patch", NODE_IMAGES, FORBIDDEN)
            await execution.execute([record])
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["problem"] for line in warnings] == [FORBIDDEN.message] * 2
    assert metrics.registry.get_sample_value("prewarm_write_errors_total", {"intent": "Apply"}) == 4


async def test_a_namespace_that_ends_alarms_nobody() -> None:
    intents = (
        RecordEvent(IMAGE_CACHES, "shop", "base", "uid", "Ready", "all is there"),
        Create(PODS, "shop", "puller", {"metadata": {"name": "puller"}}),
        Apply(IMAGE_CACHES, "shop", "planned", {"metadata": {"name": "planned"}}),
    )
    metrics = Metrics(version="test")
    async with FakeApiServer.running() as server, connected(server) as client:
        store = Store()
        execution = Execution(Writer(client), store, feeds(store), metrics)
        server.ending.add("shop")
        with capture_logs() as lines:
            results = await execution.execute(intents)
    assert not any(result.done for result in results)
    told = [(line["log_level"], line["outcome"]) for line in lines if line["event"] == "write failed"]
    assert told == [("debug", "NamespaceEnds")] * len(intents)
    for intent in intents:
        labels = {"intent": type(intent).__name__}
        assert metrics.registry.get_sample_value("prewarm_write_errors_total", labels) == 0


GATE = OpenGate(
    DEPLOYMENTS,
    "shop",
    "web",
    resource_version="1",
    marker="since",
    reason="Warm",
    told=RecordEvent(DEPLOYMENTS, "shop", "web", "uid", "GateOpened", "Warm: Ready True"),
)


@pytest.mark.parametrize(
    ("marker", "refusals", "told"),
    [
        ("since", (), 1),
        ("since", (FORBIDDEN,), 0),
        ("of a later hold", (), 0),
    ],
)
async def test_that_a_gate_was_opened_is_told_and_counted_once_it_is(
    marker: str, refusals: tuple[Refuse, ...], told: int
) -> None:
    metrics = Metrics(version="test")
    async with FakeApiServer.running() as server, connected(server) as client:
        held = {"name": "web", "namespace": "shop", "annotations": {ANNOTATION_GATE_HELD: marker}}
        server.put(DEPLOYMENTS, {"metadata": held, "spec": {"paused": True}})
        store = Store()
        execution = Execution(Writer(client), store, feeds(store), metrics)
        server.fail_next("patch", DEPLOYMENTS, *refusals)
        (result,) = await execution.execute([GATE])
        events = [event["message"] for event in server.objects(EVENTS).values()]
    assert result.intent == GATE
    assert events == ["Warm: Ready True"] * told
    assert metrics.registry.get_sample_value("prewarm_gates_opened_total", {"reason": "Warm"}) == told
