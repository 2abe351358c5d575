"""Trouble with writes is told when it begins, not at each try."""

from structlog.testing import capture_logs

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import Writer
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.model.intents import NODE_IMAGES, Apply
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
