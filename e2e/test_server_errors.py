"""A webhook that is down: the API server's error is told, other namespaces go on, and what is mended heals."""

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from e2e import admission
from e2e.caching import APP, NEXT, Lane, running_lane
from e2e.cluster.selection import Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

PLACES = 2
WORDS = 'failed calling webhook "pods.example.com"'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    folder = tmp_path_factory.mktemp("errors")
    async with running_lane(cluster, folder, {"PREWARM_CLUSTER_PULLS": str(PLACES)}) as running:
        yield running


async def test_dead_webhook_of_one_namespace_is_told_and_in_nobody_elses_way(lane: Lane) -> None:
    async with lane.shop(nodes=4) as broken, lane.shop(nodes=4) as sound:
        await admission.break_webhook(broken)
        await broken.cache("first", broken.entry(APP))
        began = time.monotonic()
        # It comes first, has more nodes than there are places, and every one of its pods is an error 500.
        await sound.cache("second", sound.entry(NEXT))
        await broken.wait("first", ".status.failures[0].reason=Refused", 20)
        assert time.monotonic() - began < 10
        status = await broken.status("first")
        failures = status["failures"]
        assert isinstance(failures, list)
        assert {failure["image"] for failure in failures} == {APP}
        assert all(WORDS in failure["message"] for failure in failures)
        assert (await broken.reasons("first"))["Refused"] == status["failed"]
        assert (await broken.conditions("first"))["Degraded"].status == "True"

        await sound.wait("second", "Ready", 60)
        assert sound.pulls(NEXT) == sound.once(*sound.nodes)
        assert not lane.pods.ordered(broken.namespace)

        await admission.mend_webhook(broken)
        await broken.wait("first", "Ready", 90)
        assert broken.pulls(APP) == broken.once(*broken.nodes)
        assert (await broken.status("first"))["failed"] == 0


async def test_run_whose_pods_the_server_cannot_make_ends(lane: Lane) -> None:
    async with lane.shop(nodes=3) as broken:
        await admission.break_webhook(broken)
        await broken.cache("once", broken.entry(APP), completion={"type": "Once"}, attempts={"limit": 1})
        await broken.wait("once", "Finished", 130)
        finished = (await broken.conditions("once"))["Finished"]
        assert finished.reason == "PullsFailed"
        assert (await broken.status("once"))["failed"] == 3
        await admission.mend_webhook(broken)
