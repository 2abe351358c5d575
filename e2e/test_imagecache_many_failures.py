"""A thousand nodes fail to pull: a small status counts them all, and nobody waits for them. A real control plane."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping

import msgspec
import pytest
import pytest_asyncio
from msgspec import Raw, Struct, field
from msgspec.structs import replace

from e2e.caching import APP, PRIVATE, Lane, Shop, running_lane
from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import cluster_of
from e2e.emulator.watching import Watch
from prewarm.api.image_cache_status import MAX_STATUS_BYTES
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.model.intents import IMAGE_CACHES, NODES
from prewarm.simulation.registry import synthetic_image

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

WRONG = f"registry.test/{'a' * 200}:missing"
"""A name as long as they come, which the kubelet's words repeat."""
FOREIGN = "registry.test/foreign:v1"
"""An index that has nothing for the nodes' architecture."""
POOLS = {"wrong": 600, "foreign": 200, "private": 200}
GOOD = 50
OPTIONS = ControlPlaneOptions(
    node_lease_seconds=400, extra_flags={Component.KUBE_CONTROLLER_MANAGER: ["--node-monitor-grace-period=600s"]}
)
"""So that nodes stay Ready on a busy machine: a node in trouble would be skipped."""
SETTINGS = {
    "PREWARM_CLUSTER_PULLS": "1000",
    "PREWARM_REGISTRY_PULLS": "1000",
    # A server with so many nodes may keep the lease waiting for longer than those of other tests last.
    "PREWARM_LEASE_DURATION_SECONDS": "30",
}


class _Meta(Struct):
    name: str


class _Condition(Struct):
    type: str
    status: str


class _NodeStatus(Struct):
    conditions: list[_Condition] = []


class _Node(Struct):
    metadata: _Meta
    status: _NodeStatus = field(default_factory=_NodeStatus)


class _Cache(Struct):
    metadata: _Meta
    status: Raw = field(default_factory=Raw)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(
    control_plane_binaries: ControlPlaneBinaries,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Lane]:
    folder = tmp_path_factory.mktemp("many-failures")
    async with (
        ControlPlane.start(OPTIONS) as plane,
        running_lane(cluster_of(plane), folder, SETTINGS, crowd=True) as running,
    ):
        foreign = replace(synthetic_image(FOREIGN, [1_000_000]), matches_platform=False)
        running.emulator.fleet.registries.push(FOREIGN, foreign)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def sizes(lane: Lane) -> AsyncIterator[Mapping[str, list[int]]]:
    """Bytes of every status that is written, by ImageCache."""
    found: dict[str, list[int]] = {}

    def see(cache: _Cache) -> None:
        found.setdefault(cache.metadata.name, []).append(len(bytes(cache.status)))

    async with Client(Connection.load(lane.cluster.kubeconfig, lane.cluster.context)) as client:
        watch = Watch(client, IMAGE_CACHES, _Cache, seen=see, gone=lambda _: None)
        watching = asyncio.create_task(watch.run(), name="statuses")
        yield found
        assert not watching.done(), "statuses were not watched to the end"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def until_ready(lane: Lane, names: Collection[str]) -> None:
    """Return once all these nodes are Ready: others are skipped, and a run ends without those that stay so."""
    waiting, done = set(names), asyncio.Event()

    def see(node: _Node) -> None:
        if any(found.type == "Ready" and found.status == "True" for found in node.status.conditions):
            waiting.discard(node.metadata.name)
        if not waiting:
            done.set()

    async with Client(Connection.load(lane.cluster.kubeconfig, lane.cluster.context)) as client:
        watching = asyncio.create_task(Watch(client, NODES, _Node, seen=see, gone=lambda _: None).run(), name="nodes")
        try:
            async with asyncio.timeout(240):
                await done.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_a_thousand_failures_are_counted_and_a_few_are_told(lane: Lane, sizes: Mapping[str, list[int]]) -> None:
    shop = Shop(lane, "crowd")
    await shop.add_namespace(shop.namespace)
    for pool, count in POOLS.items():
        await shop.add_nodes(count, pool, {"pool": pool})
    await until_ready(lane, shop.nodes)
    images = {"wrong": WRONG, "foreign": FOREIGN, "private": PRIVATE}
    entries = [shop.entry(image, nodeSelector={"pool": pool}) for pool, image in images.items()]
    once = {"type": "Once"}
    await shop.cache("broken", *entries, completion=once, attempts={"limit": 1})
    some = [name for name in shop.nodes if name.startswith(f"{shop.namespace}-wrong")][:GOOD]
    await shop.cache("good", {"images": [APP], "nodeNames": some}, completion=once)

    # The first ones are told of with the kubelet's words while others go on.
    await shop.wait("broken", ".status.failures[0].attempts=1", 120)
    await shop.wait("broken", "Finished", 300)
    assert (await shop.conditions("broken"))["Finished"].reason == "PullsFailed"
    status = await shop.status("broken")
    assert (status["desired"], status["succeeded"], status["failed"]) == (1000, 0, 1000)
    assert await shop.reasons("broken") == {"NotFound": 600, "WrongPlatform": 200, "Unauthorized": 200}
    failures = msgspec.convert(status["failures"], list[dict[str, str | int]])
    assert len(failures) > 1
    assert all(failure["message"] for failure in failures)

    await shop.wait("good", "Ready", 120)
    assert shop.pulls(APP) == shop.once(*some)
    await lane.pods.until(lambda: not lane.pods.left(shop.namespace), 120)
    assert len(lane.pods.ordered(shop.namespace)) == 1000 + GOOD
    assert len(sizes["broken"]) > 1
    assert max(sizes["broken"]) <= MAX_STATUS_BYTES
