"""Removing images: a real control plane, emulated kubelets whose runtime removes what the pods ask for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.caching import APP, KIND, NEXT, SIDECAR, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.controller import SYSTEM_NAMESPACE
from e2e.lane import eventually
from prewarm.model.images import parse_reference

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(150)]

PURGING = {"PREWARM_PURGE": "true", "PREWARM_PURGE_IMAGE": "registry.test/prewarm:v1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("purge"), PURGING) as running:
        yield running


def holders(shop: Shop, image: str) -> list[str]:
    """Nodes of the test whose runtime has an image."""
    reference, fleet = parse_reference(image), shop.lane.emulator.fleet
    return [name for name in shop.nodes if fleet.kubelet(name).store.find(reference) is not None]


async def gone(shop: Shop, image: str) -> None:
    async def nowhere() -> bool:
        return not holders(shop, image)

    await eventually(nowhere, 60)


async def purged(shop: Shop, name: str, reason: str) -> str:
    """Wait until the condition Purged has a reason; its message."""
    path = '{.status.conditions[?(@.type=="Purged")].reason}'
    await shop.kubectl("wait", f"{KIND}/{name}", f"--for=jsonpath={path}={reason}", "--timeout=60s")
    return (await shop.conditions(name))["Purged"].message


async def nothing_left(lane: Lane) -> None:
    """No pod that removes images, and nothing remembered, once the last cache is gone."""

    async def empty() -> bool:
        pods = await lane.kubectl("get", "pods", "-n", SYSTEM_NAMESPACE, "-l", "prewarm.dev/purger=true", "-o", "name")
        return not pods.strip()

    await eventually(empty, 30)


async def remembered(lane: Lane) -> list[str]:
    found = json.loads(await lane.kubectl("get", "configmap/prewarm-purge", "-n", SYSTEM_NAMESPACE, "-o", "json"))
    return [cache["name"] for cache in json.loads(found["data"]["caches"])]


async def test_deletion_removes_what_no_other_cache_wants(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP, SIDECAR), deletionPolicy="Purge")
        await shop.wait("warm", "Ready")
        await shop.cache("zoo", shop.entry(SIDECAR))
        await shop.wait("zoo", "Ready")
        assert await remembered(lane) == ["warm"]
        await shop.kubectl("delete", f"{KIND}/warm", "--timeout=5s")
        await gone(shop, APP)
        await nothing_left(lane)
        assert holders(shop, SIDECAR) == shop.nodes
        assert ("Warning", "PurgeImagesStay") in await shop.told("warm", "PurgeImagesStay")
        assert await remembered(lane) == []


async def test_what_is_taken_out_of_a_list_goes_unless_a_pod_uses_it(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP, NEXT, SIDECAR), deletionPolicy="Purge")
        await shop.wait("warm", "Ready")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "busy"},
            "spec": {"nodeName": shop.nodes[0], "containers": [{"name": "main", "image": NEXT}]},
        }
        await shop.kubectl("apply", "-f", "-", manifest=json.dumps(pod))
        await shop.kubectl("wait", "pod/busy", "--for=condition=Ready", "--timeout=30s")
        await shop.cache("warm", shop.entry(APP), deletionPolicy="Purge")
        said = await purged(shop, "warm", "ImagesStay")
        assert said == "3 of 4 image and node pairs are gone, 1 stay: 1 InUse"
        assert holders(shop, APP) == shop.nodes
        assert holders(shop, NEXT) == shop.nodes[:1]
        assert holders(shop, SIDECAR) == []
        await nothing_left(lane)


@pytest.mark.parametrize("value", ["", "first"])
async def test_purge_by_annotation_acts_once_and_rests_until_a_refresh(lane: Lane, value: str) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        await shop.kubectl("annotate", f"{KIND}/warm", f"prewarm.dev/purge={value}")
        await purged(shop, "warm", "Removed")
        await gone(shop, APP)

        async def heeded() -> bool:
            found = json.loads(await shop.kubectl("get", f"{KIND}/warm", "-o", "json"))
            asked = found["metadata"].get("annotations", {}).get("prewarm.dev/purge")
            return (asked, found["status"].get("purgeHandled")) == ((value, value) if value else (None, None))

        await eventually(heeded, 30)
        pulls = sum(shop.pulls(APP).values())

        async def rests() -> bool:
            return await shop.reasons("warm") == {"Purged": 2}

        await eventually(rests, 60)
        assert sum(shop.pulls(APP).values()) == pulls
        await shop.kubectl("annotate", f"{KIND}/warm", "prewarm.dev/refresh=now")

        async def back() -> bool:
            return holders(shop, APP) == shop.nodes

        # What was purged counts for nothing, so the condition may be met until the refresh is heeded.
        await eventually(back, 60)
        await shop.wait("warm", "Ready")
        await nothing_left(lane)


async def test_refresh_and_purge_asked_for_together_purge(lane: Lane) -> None:
    """As kube-fledged has it where both stand; each acts once, and a later refresh brings the images back."""
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        await shop.kubectl("annotate", f"{KIND}/warm", "prewarm.dev/refresh=both", "prewarm.dev/purge=both")
        await shop.wait("warm", ".status.refreshHandled=both", 30)
        await shop.wait("warm", ".status.purgeHandled=both", 30)
        await purged(shop, "warm", "Removed")
        await gone(shop, APP)

        async def rests() -> bool:
            return await shop.reasons("warm") == {"Purged": 2}

        await eventually(rests, 60)
        await nothing_left(lane)
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        await shop.kubectl("annotate", f"{KIND}/warm", "prewarm.dev/refresh=back", "--overwrite")

        async def back() -> bool:
            return holders(shop, APP) == shop.nodes

        await eventually(back, 60)
        await shop.wait("warm", "Ready")


async def test_what_happens_while_the_controller_is_down_is_acted_on(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.cache("deleted", shop.entry(APP), deletionPolicy="Purge")
        await shop.cache("asked", shop.entry(NEXT))
        await shop.wait("deleted", "Ready")
        await shop.wait("asked", "Ready")
        lane.controller.kill()
        await shop.kubectl("delete", f"{KIND}/deleted", "--timeout=5s")
        await shop.kubectl("annotate", f"{KIND}/asked", "prewarm.dev/purge=")
        await lane.controller.start()
        await asyncio.gather(gone(shop, APP), gone(shop, NEXT))
        await purged(shop, "asked", "Removed")
        await nothing_left(lane)


async def test_where_it_is_off_a_purge_says_so_at_once(cluster: Cluster, tmp_path: Path, lane: Lane) -> None:
    await lane.controller.stop()
    try:
        async with running_lane(cluster, tmp_path) as off, off.shop(nodes=1) as shop:
            await shop.cache("warm", shop.entry(APP))
            await shop.wait("warm", "Ready")
            await shop.kubectl("annotate", f"{KIND}/warm", "prewarm.dev/purge=now")
            await purged(shop, "warm", "SwitchedOff")
            assert ("Warning", "PurgeSwitchedOff") in await shop.told("warm", "PurgeSwitchedOff")
            assert holders(shop, APP) == shop.nodes
            assert (await shop.conditions("warm"))["Ready"].status == "True"
            # A policy that could not be carried out is told before it is needed.
            await shop.cache("policy", shop.entry(NEXT), deletionPolicy="Purge")
            await purged(shop, "policy", "SwitchedOff")
            assert ("Warning", "PurgeSwitchedOff") in await shop.told("policy", "PurgeSwitchedOff")
    finally:
        await lane.controller.start()
