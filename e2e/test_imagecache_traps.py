"""What people ran into with kube-fledged's and OpenKruise's image caches: a real control plane, emulated kubelets."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from e2e.caching import APP, KIND, NEXT, SLOW, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

LARGE_AND_MOVING = "registry.test/large:latest"
HELPER = "registry.test/helper:missing-v9"
LONGEST_NAME = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("traps")) as running:
        yield running


async def test_refresh_that_is_asked_for_during_a_pull_is_heeded_and_disturbs_nothing(lane: Lane) -> None:
    """The pull that is under way answers it: its pod stays, and nothing is asked of the registry a second time."""
    async with lane.shop(nodes=1) as shop:
        await shop.cache("warm", shop.entry(LARGE_AND_MOVING))
        await lane.pods.until(lambda: lane.pods.left(shop.namespace, LARGE_AND_MOVING))
        await shop.kubectl("annotate", f"{KIND}/warm", "prewarm.dev/refresh=during")
        await shop.wait("warm", ".status.refreshHandled=during", 10)
        assert (await shop.status("warm"))["succeeded"] == 0
        assert lane.pods.left(shop.namespace, LARGE_AND_MOVING)
        await shop.wait("warm", "Ready", 60)
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        assert len(lane.pods.ordered(shop.namespace)) == 1
        assert shop.pulls(LARGE_AND_MOVING) == shop.once(*shop.nodes)


async def test_name_as_long_as_the_server_takes_it(lane: Lane) -> None:
    """Labels and pods' host names end at 63 characters, names of objects at 253."""
    assert len(LONGEST_NAME) == 253
    async with lane.shop(nodes=1) as shop:
        await shop.cache(LONGEST_NAME, shop.entry(APP))
        await shop.wait(LONGEST_NAME, "Ready", 40)
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        await shop.kubectl("annotate", f"{KIND}/{LONGEST_NAME}", "prewarm.dev/refresh=now")
        await shop.wait(LONGEST_NAME, ".status.refreshHandled=now", 20)
        await shop.cache(LONGEST_NAME, shop.entry(APP, "registry.test/shop:missing-v9"))
        await shop.wait(LONGEST_NAME, "Degraded", 40)
        await shop.kubectl("delete", f"{KIND}/{LONGEST_NAME}", "--timeout=10s")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))


async def test_helper_image_that_cannot_be_pulled_is_told_as_that(cluster: Cluster, tmp_path: Path, lane: Lane) -> None:
    """Not as a failure of the image that was asked for, about which nothing is known then."""
    await lane.controller.stop()
    settings = {"PREWARM_LEASE_DURATION_SECONDS": "2", "PREWARM_HELPER_IMAGE": HELPER}
    controller = ControllerProcess(cluster.kubeconfig, tmp_path / "controller.log", settings)
    try:
        await controller.start()
        async with lane.shop(nodes=1) as shop:
            await shop.cache("run", shop.entry(APP))
            await shop.cache("mounted", shop.entry(NEXT), pullerForm="Volume")
            for name, image in (("run", APP), ("mounted", NEXT)):
                await shop.wait(name, "Degraded", 60)
                assert await shop.reasons(name) == {"HelperFailed": 1}
                status = await shop.status(name)
                (failure,) = msgspec.convert(status["failures"], list[dict[str, str | int]])
                assert (failure["image"], failure["reason"]) == (image, "HelperFailed")
                assert "helper" in str(failure["message"])
                assert HELPER in str(failure["message"])
                assert "not found" in str(failure["message"])
    finally:
        await controller.stop()
        await lane.controller.start()


async def drain(shop: Shop, node: str, *options: str) -> None:
    """`kubectl drain` without --force: it refuses pods that nobody manages."""
    await shop.kubectl("drain", node, "--timeout=30s", *options)


async def test_drain_does_not_wait_for_pulls(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        running, mounting = shop.nodes
        on_one, on_other = ({"nodeNames": [node]} for node in shop.nodes)
        await shop.cache("run", shop.entry(SLOW, **on_one))
        await shop.cache("mounted", shop.entry(SLOW, **on_other), pullerForm="Volume")
        await lane.pods.until(lambda: len(lane.pods.left(shop.namespace)) == 2)
        # The binary of ours comes by an empty directory, which kubectl takes for data until the pod has ended.
        await drain(shop, running, "--delete-emptydir-data")
        await drain(shop, mounting)
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        for name in ("run", "mounted"):
            await shop.wait(name, ".status.skipped=1", 30)
            assert await shop.reasons(name) == {"Cordoned": 1}


async def test_drain_takes_finished_pods_that_hold_images_away(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.cache("kept", shop.entry(APP), hold="1h")
        await shop.wait("kept", "Ready", 40)
        await shop.kubectl("wait", "pods", "--all", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
        await drain(shop, shop.nodes[0])
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
