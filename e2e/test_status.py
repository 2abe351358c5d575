"""`prewarm status` against a real API server: what is where, how that is known, and every change as it comes."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import pytest_asyncio
from msgspec import Struct

from e2e.caching import APP, SIDECAR, WRONG, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.lane import eventually
from prewarm.cli.errors import ExitCode

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


class _Known(Struct, rename="camel"):
    image: str
    evidence: str
    digest: str | None
    image_cache: str | None
    pull_seconds: float | None


class _Failed(Struct, rename="camel"):
    image: str
    reason: str
    message: str
    attempts: int
    image_cache: str | None


class _OnNode(Struct):
    node: str
    images: list[_Known]
    failures: list[_Failed]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("status")) as running:
        yield running


@asynccontextmanager
async def prewarm(shop: Shop, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A prewarm command, ended with the block."""
    found = shop.lane.cluster
    where = ("--kubeconfig", str(found.kubeconfig), "--context", found.context)
    command = (sys.executable, "-m", "prewarm", "status", *arguments, *where)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def printed(shop: Shop, *arguments: str) -> str:
    """What a prewarm command that succeeds prints."""
    async with prewarm(shop, *arguments) as process:
        out, _ = await process.communicate()
        assert process.returncode == ExitCode.DONE
        return out.decode()


async def test_a_node_tells_what_is_there_how_that_is_known_and_what_failed(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        (node,) = shop.nodes
        assert f"Nothing is known of node {node}" in await printed(shop, f"node/{node}")
        spec = {"nodeName": node, "containers": [{"name": "c", "image": SIDECAR}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runs"}, "spec": spec}
        await shop.kubectl("create", "-f", "-", manifest=json.dumps(pod))
        await shop.kubectl("wait", "pod/runs", "--for=condition=Ready", "--timeout=60s")
        await shop.cache("warm", shop.entry(APP, SIDECAR, WRONG))
        await shop.wait("warm", "Degraded")
        await shop.wait("warm", ".status.succeeded=2")
        cache = f"{shop.namespace}/warm"

        async def on_node() -> _OnNode:
            return msgspec.json.decode(await printed(shop, f"node/{node}", "-o", "json"), type=_OnNode)

        async def written() -> bool:
            found = await on_node()
            return len(found.images) >= 2 and bool(found.failures)

        await eventually(written)
        found = await on_node()
        known = {image.image: image for image in found.images}
        assert found.node == node
        assert (known[APP].evidence, known[APP].image_cache) == ("OurPull", cache)
        assert known[APP].digest
        assert known[APP].pull_seconds
        assert (known[SIDECAR].evidence, known[SIDECAR].image_cache) == ("RunningPod", None)
        (failed,) = found.failures
        assert (failed.image, failed.reason, failed.image_cache) == (WRONG, "NotFound", cache)
        assert f"failed to resolve image: {WRONG}: not found" in failed.message
        table = await printed(shop, f"node/{node}")
        assert all(word in table for word in ("OurPull", "RunningPod", "Failed pulls", "NotFound"))
        columns = await shop.kubectl("get", "nodeimages.prewarm.dev", node)
        assert node in columns

        listed = json.loads(await printed(shop, "-n", shop.namespace, "-o", "json"))
        assert [one["name"] for one in listed["imageCaches"]] == ["warm"]


async def test_watching_shows_every_change_until_it_is_interrupted(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.cache("warm", shop.entry(APP), suspend=True)
        async with prewarm(shop, f"{shop.namespace}/warm", "--watch", "-o", "json") as watching, asyncio.timeout(60):
            assert watching.stdout is not None
            assert json.loads(await watching.stdout.readline())["name"] == "warm"
            await shop.kubectl(
                "patch", "imagecaches.prewarm.dev/warm", "--type=merge", "-p", '{"spec":{"suspend":false}}'
            )
            while json.loads(await watching.stdout.readline())["status"].get("succeeded") != 1:
                pass
            watching.send_signal(signal.SIGINT)
            assert await watching.wait() == ExitCode.INTERRUPTED
