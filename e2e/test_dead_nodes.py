"""Nodes that die with a pull of ours on them: kubelets fall silent, and the node lifecycle controller finds out.

A control plane of its own, on which that takes seconds in place of 50.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from e2e.caching import SLOW, Lane, Shop, running_lane
from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import cluster_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

ALIVE = "prewarm.dev/heartbeat"
OPTIONS = ControlPlaneOptions(
    kwok_node_selector=f"{ALIVE}=yes",
    node_lease_seconds=8,
    extra_flags={
        Component.KUBE_CONTROLLER_MANAGER: ["--node-monitor-grace-period=12s", "--node-monitor-period=1s"],
    },
)
PLACES = 2
FOR_EVER = 1e9


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(
    control_plane_binaries: ControlPlaneBinaries, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lane]:
    folder = tmp_path_factory.mktemp("dead-nodes")
    settings = {"PREWARM_CLUSTER_PULLS": str(PLACES)}
    async with ControlPlane.start(OPTIONS) as plane, running_lane(cluster_of(plane), folder, settings) as running:
        yield running


async def add_nodes(shop: Shop, count: int) -> None:
    await shop.add_nodes(count, labels={ALIVE: "yes"})
    await shop.kubectl("wait", "node", *shop.nodes, "--for=condition=Ready", "--timeout=30s")


def stop_kubelet(shop: Shop, node: str, seconds: float) -> None:
    """What it was doing is lost; it comes back after so many seconds."""
    shop.lane.emulator.feed(lambda: shop.lane.emulator.fleet.kubelet(node).restart(seconds))


async def beat(shop: Shop, node: str, *, alive: bool) -> None:
    """Whether the node renews its lease from now on."""
    await shop.kubectl("label", "node", node, f"{ALIVE}={'yes' if alive else 'no'}", "--overwrite")


async def die(shop: Shop) -> tuple[str, str]:
    """Two nodes with both places die: one before its kubelet looked at the pod, one while it pulls."""
    idle, pulling = shop.nodes[:2]
    await shop.lane.pods.until(lambda: shop.lane.pods.left(shop.namespace, node=pulling))
    (pod,) = shop.lane.pods.left(shop.namespace, node=pulling)
    copied = "jsonpath={.status.initContainerStatuses[0].state.terminated.exitCode}=0"
    await shop.kubectl("wait", f"pod/{pod.metadata.name}", f"--for={copied}", "--timeout=20s")
    stop_kubelet(shop, pulling, FOR_EVER)
    assert {pod.spec.node_name for pod in shop.lane.pods.left(shop.namespace)} == {idle, pulling}
    for node in (idle, pulling):
        await beat(shop, node, alive=False)
    await shop.kubectl("wait", "node", idle, pulling, "--for=condition=Ready=Unknown", "--timeout=60s")
    return idle, pulling


async def test_openkruise_trap_nodes_that_die_after_the_order_are_told_and_hold_no_place(lane: Lane) -> None:
    """There they held a job's places until its deadline. Others complete; the dead are taken up when they return."""
    async with lane.shop() as shop:
        await add_nodes(shop, 5)
        stop_kubelet(shop, shop.nodes[0], FOR_EVER)
        await shop.cache("warm", {"images": [SLOW], "nodeNames": shop.nodes})
        idle, pulling = await die(shop)
        await shop.wait("warm", "Ready", 60)
        assert shop.pulls(SLOW) == shop.once(*shop.nodes[2:])
        assert await shop.reasons("warm") == {"NotReady": 2}
        status = await shop.status("warm")
        assert (status["succeeded"], status["skipped"], status["failed"], status["active"]) == (3, 2, 0, 0)
        # What had not begun is taken back; nothing stops what may be pulling still, and its pod proves it one day.
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace, node=idle))

        for node in (idle, pulling):
            stop_kubelet(shop, node, 0.0)
            await beat(shop, node, alive=True)
        await shop.wait("warm", ".status.succeeded=5", 60)
        assert shop.pulls(SLOW) == shop.once(*shop.nodes)
        assert await shop.reasons("warm") == {}
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))


async def test_openkruise_trap_run_ends_though_nodes_died_while_it_went_on(lane: Lane) -> None:
    async with lane.shop() as shop:
        await add_nodes(shop, 4)
        stop_kubelet(shop, shop.nodes[0], FOR_EVER)
        attempts = {"timeoutSeconds": 30}
        completion = {"type": "Once"}
        await shop.cache("once", {"images": [SLOW], "nodeNames": shop.nodes}, completion=completion, attempts=attempts)
        await die(shop)
        await shop.wait("once", "Finished", 90)
        assert (await shop.conditions("once"))["Finished"].reason == "Succeeded"
        status = await shop.status("once")
        assert (status["succeeded"], status["skipped"], status["failed"]) == (2, 2, 0)
        assert await shop.reasons("once") == {"NotReady": 2}
        # They never come back: their pods go nevertheless, once the attempt's time is over.
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace), 90)
        assert (await shop.status("once"))["failed"] == 0
