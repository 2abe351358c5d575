"""Pulls that take longer than attempts.timeoutSeconds: a real control plane.

A kubelet that pulls does not stop at a pod's deadline, and says nothing until the image is there.
"""

from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from e2e.caching import KIND, SLOW, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

BYTES = 1e9
"""Of SLOW."""
TIMEOUT = 15
"""Given up after twice that time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("timeouts")) as running:
        yield running


def downloads(shop: Shop) -> Counter[str]:
    """Nodes that have downloaded it, by the kubelets' own account."""
    pulls = shop.lane.emulator.pulls
    return Counter(p.node for p in pulls if p.image == SLOW and p.node in shop.nodes and p.downloaded_bytes)


async def test_what_takes_too_long_fails_and_what_is_there_after_all_counts(lane: Lane) -> None:
    async with lane.shop() as shop:
        (quick,) = await shop.add_nodes(1, "quick", bandwidth=BYTES / 3)
        (slow,) = await shop.add_nodes(1, "slow", bandwidth=BYTES / 19)
        (stuck,) = await shop.add_nodes(1, "stuck", bandwidth=BYTES / 40)
        attempts = {"timeoutSeconds": TIMEOUT, "limit": 1}
        await shop.cache("warm", shop.entry(SLOW), completion={"type": "Once"}, attempts=attempts)
        await shop.wait("warm", "Finished", 90)
        assert (await shop.conditions("warm"))["Finished"].reason == "PullsFailed"
        status = await shop.status("warm")
        assert (status["succeeded"], status["failed"]) == (2, 1)
        assert await shop.reasons("warm") == {"Deadline": 1}
        (failure,) = msgspec.convert(status["failures"], list[dict[str, str | int]])
        assert (failure["node"], failure["reason"], failure["attempts"]) == (stuck, "Deadline", 1)
        assert failure["message"] == f"no verdict from the kubelet within {TIMEOUT} s"
        assert downloads(shop) == shop.once(quick, slow)
        (late,) = (pull for pull in lane.emulator.pulls if pull.image == SLOW and pull.node == slow)
        assert late.at - late.started_at > TIMEOUT

        await lane.emulator.until(lambda: stuck in downloads(shop))
        await shop.kubectl("annotate", f"{KIND}/warm", "prewarm.dev/refresh=now")
        await shop.wait("warm", ".status.succeeded=3")
        assert downloads(shop) == shop.once(quick, slow, stuck)
