"""Images that a workload's owner announces: on the predicted nodes before anything is applied, on a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=8, prefix="announced", image_bytes=100_000_000)
REPLICAS = 6
CACHES = "imagecaches.prewarm.dev"
ONE_PER_NODE = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {
                "labelSelector": {"matchLabels": {"app": "shop"}},
                "matchLabelKeys": ["pod-template-hash"],
                "topologyKey": "kubernetes.io/hostname",
            }
        ]
    }
}


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def deployment() -> dict[str, object]:
    """Each pod of a revision has a node of its own, and there are as many that take them as pods."""
    template = pod_template("v1", PLAN, name="shop", startup_seconds=1, affinity=ONE_PER_NODE)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "annotations": {"prewarm.dev/enabled": "true"}},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "shop"}}, "template": template},
    }


async def test_an_announced_image_is_on_the_predicted_nodes_before_it_is_applied(lane: Lane) -> None:
    nodes = sorted(lane.emulator.fleet.nodes)
    tainted, fitting = nodes[:-REPLICAS], nodes[-REPLICAS:]
    for node in tainted:
        await lane.kubectl("taint", "node", node, "kept=for-others:NoSchedule")
    controller = await lane.controller()
    await lane.apply(deployment())
    await lane.rolled_out("deployment/shop")
    before = await outcomes(controller, REPLICAS)
    await lane.kubectl("annotate", "deployment/shop", f"prewarm.dev/next-images=app={REPOSITORY}:v2")

    async def warm() -> bool:
        return lane.downloads("v2") == dict.fromkeys(fitting, 1)

    await eventually(warm)
    found: Any = await lane.get("pods", "-l", "app=shop")
    assert {pod["spec"]["containers"][0]["image"] for pod in found["items"]} == {f"{REPOSITORY}:v1"}
    now: Any = await lane.get("deployment/shop")
    assert now["spec"]["template"]["spec"]["containers"][0]["image"] == f"{REPOSITORY}:v1"

    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:v2")
    await lane.rolled_out("deployment/shop")
    after = await outcomes(controller, 2 * REPLICAS)
    assert after.get("hit_prewarmed", 0) - before.get("hit_prewarmed", 0) == REPLICAS, after
    assert lane.cold_starts("v2") == 0
    assert lane.downloads("v2") == dict.fromkeys(fitting, 1)

    async def withdrawn() -> bool:
        return not await lane.names(CACHES)

    await eventually(withdrawn)


async def test_an_announcement_that_is_taken_back_is_withdrawn(lane: Lane) -> None:
    """One pull at a time, so that most are still to come."""
    controller = await lane.controller(PREWARM_CLUSTER_PULLS="1")
    await lane.apply(deployment())
    await lane.rolled_out("deployment/shop")
    await outcomes(controller, REPLICAS)
    await lane.kubectl("annotate", "deployment/shop", f"prewarm.dev/next-images={REPOSITORY}:v2")

    async def begun() -> bool:
        return bool(lane.downloads("v2"))

    async def withdrawn() -> bool:
        return not await lane.names(CACHES) and not await lane.names("pods", "-l", "prewarm.dev/puller=true")

    await eventually(begun)
    await lane.kubectl("annotate", "deployment/shop", "prewarm.dev/next-images-")
    await eventually(withdrawn)
    assert sum(lane.downloads("v2").values()) < REPLICAS
