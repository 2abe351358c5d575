"""Many ImageCaches made at one moment, refreshed at one interval: a real control plane."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from itertools import accumulate

import pytest
import pytest_asyncio
import yaml

from e2e.caching import APP, KIND, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

CACHES, INTERVAL = 12, 30
BUDGET = 6
"""Pulls at once in the whole cluster."""
MOVING = [f"registry.test/tool-{number}:latest" for number in range(CACHES)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    settings = {"PREWARM_CLUSTER_PULLS": str(BUDGET)}
    async with running_lane(cluster, tmp_path_factory.mktemp("refreshes"), settings) as running:
        yield running


def asked_twice(shop: Shop, *images: str) -> bool:
    """Whether every node was asked twice for each image."""
    found = [len(shop.lane.pods.ordered(shop.namespace, image)) for image in images]
    return min(found) >= 2 * len(shop.nodes)


def most_at_once(shop: Shop) -> int:
    """Pulls at the same time, by the kubelets' own account."""
    pulls = [pull for pull in shop.lane.emulator.pulls if pull.node in shop.nodes]
    moments = [(pull.started_at, 1) for pull in pulls] + [(pull.at, -1) for pull in pulls]
    return max(accumulate(change for _, change in sorted(moments)))


def cache(shop: Shop, name: str, image: str, **spec: object) -> Mapping[str, object]:
    return {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": name},
        "spec": {"cacheSpec": [shop.entry(image)], **spec},
    }


async def begin(shop: Shop, *caches: Mapping[str, object]) -> None:
    """Make them all at once, and return once they are Ready."""
    await shop.kubectl("create", "-f", "-", manifest=yaml.safe_dump_all(caches))
    await shop.kubectl("wait", KIND, "--all", "--for=condition=Ready", "--timeout=60s")


async def test_refreshes_of_many_caches_spread_out_and_ask_for_nothing_certain(lane: Lane) -> None:
    """Each ImageCache has a pace of its own, up to a tenth of the interval off."""
    async with lane.shop(nodes=2) as shop:
        interval = f"{INTERVAL}s"
        moving = (cache(shop, f"moving-{n}", image, refreshInterval=interval) for n, image in enumerate(MOVING))
        settled = (cache(shop, f"settled-{n}", APP, refreshInterval=interval) for n in range(CACHES))
        await begin(shop, *moving, *settled)
        await lane.pods.until(lambda: asked_twice(shop, *MOVING), 2 * INTERVAL)
        found = json.loads(await shop.kubectl("get", KIND, "-o", "json"))["items"]
        after = [
            since(one["metadata"]["creationTimestamp"], one["status"]["refreshedAt"])
            for one in found
            if "refreshedAt" in one["status"]
        ]
        assert len(after) >= CACHES
        assert len(set(after)) >= 3, after
        assert all(any(abs(s - n * INTERVAL) <= n * INTERVAL / 10 + 1 for n in (1, 2, 3)) for s in after), after
        assert len(lane.pods.ordered(shop.namespace, APP)) == len(shop.nodes)


def since(before: str, after: str) -> float:
    """Seconds between two times of the API."""
    return (datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds()


async def test_refreshes_that_are_asked_for_together_keep_to_the_budget(lane: Lane) -> None:
    async with lane.shop(nodes=2 * BUDGET) as shop:
        images = MOVING[:3]
        await begin(shop, *(cache(shop, f"moving-{number}", image) for number, image in enumerate(images)))
        # Times of the API are whole seconds: a pull answers what is asked in the second in which it ends.
        await asyncio.sleep(1.0)
        await shop.kubectl("annotate", KIND, "--all", "prewarm.dev/refresh=now")
        await lane.pods.until(lambda: asked_twice(shop, *images), 60)
        assert most_at_once(shop) <= BUDGET
