"""What a rollout replaces is held until the rollout is judged, on the real control plane: a rollback is warm."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="rollback", image_bytes=50_000_000)
REPLICAS = 3


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


@pytest.fixture
async def policy(lane: Lane) -> AsyncIterator[str]:
    """A policy of the test's own that holds images."""
    manifest = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": lane.namespace},
        "spec": {"hold": "10m"},
    }
    await lane.apply(manifest)
    yield lane.namespace
    await lane.kubectl("delete", "prewarmpolicies.prewarm.dev", lane.namespace)


def deployment(policy: str) -> dict[str, object]:
    annotations = {"prewarm.dev/enabled": "true", "prewarm.dev/policy": policy}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": annotations},
        "spec": {
            "replicas": REPLICAS,
            "minReadySeconds": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": pod_template("v1", PLAN, name="web", startup_seconds=1),
        },
    }


async def held(lane: Lane, tag: str) -> set[str]:
    """Nodes of the lane whose record says that an image of REPOSITORY is held."""
    records: Any = json.loads(await lane.kubectl("get", "nodeimages.prewarm.dev", "-o", "json"))
    return {
        record["metadata"]["name"]
        for record in records["items"]
        for image in record.get("status", {}).get("images", [])
        if image["image"] == f"{REPOSITORY}:{tag}" and "heldUntil" in image
    } & set(lane.emulator.fleet.nodes)


async def nodes_of_pods(lane: Lane) -> set[str]:
    found: Mapping[str, Any] = await lane.get("pods", "-l", "app=web")
    return {pod["spec"]["nodeName"] for pod in found["items"]}


async def test_a_rollback_finds_its_images_held_and_pulls_nothing(lane: Lane, policy: str) -> None:
    controller = await lane.controller()
    await lane.apply(deployment(policy))
    await lane.rolled_out("deployment/web")
    ran = await nodes_of_pods(lane)
    await outcomes(controller, REPLICAS)
    pulled = sum(lane.downloads("v1").values())

    async def all_held() -> bool:
        return await held(lane, "v1") == ran

    async def nothing_left() -> bool:
        pods = await lane.names("pods", "-l", "prewarm.dev/puller=true")
        return not pods and not await lane.names("imagecaches.prewarm.dev")

    await lane.kubectl("set", "image", "deployment/web", f"app={REPOSITORY}:v2")
    await eventually(all_held)
    await lane.rolled_out("deployment/web")
    await eventually(nothing_left)
    assert sum(lane.downloads("v1").values()) == pulled, "what was there was held, not pulled again"

    ran = await nodes_of_pods(lane)
    cold = lane.cold_starts("v2")

    async def last_one_held() -> bool:
        return await held(lane, "v2") == ran

    # This one never becomes ready: nothing is judged until somebody rolls back.
    await lane.kubectl("set", "image", "deployment/web", f"app={REPOSITORY}:missing")
    await eventually(last_one_held)
    await lane.kubectl("rollout", "undo", "deployment/web")
    await lane.rolled_out("deployment/web")
    await eventually(nothing_left)
    assert lane.cold_starts("v2") == cold
