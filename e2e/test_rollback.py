"""What a rollout replaces is held until the rollout is judged, on the real control plane: a rollback is warm."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.holding import holding_policy, nodes_of_pods, until_held, until_nothing_is_left
from e2e.lane import REPOSITORY, Lane, LanePlan, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="rollback", image_bytes=50_000_000)
REPLICAS = 3


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


@pytest.fixture
async def annotations(lane: Lane) -> AsyncIterator[dict[str, str]]:
    async with holding_policy(lane) as found:
        yield found


def deployment(annotations: dict[str, str]) -> dict[str, object]:
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


async def test_a_rollback_finds_its_images_held_and_pulls_nothing(lane: Lane, annotations: dict[str, str]) -> None:
    controller = await lane.controller()
    await lane.apply(deployment(annotations))
    await lane.rolled_out("deployment/web")
    ran = await nodes_of_pods(lane, "web")
    await outcomes(controller, REPLICAS)
    pulled = sum(lane.downloads("v1").values())

    await lane.kubectl("set", "image", "deployment/web", f"app={REPOSITORY}:v2")
    await until_held(lane, "v1", ran)
    await lane.rolled_out("deployment/web")
    await until_nothing_is_left(lane)
    assert sum(lane.downloads("v1").values()) == pulled, "what was there was held, not pulled again"

    ran = await nodes_of_pods(lane, "web")
    cold = lane.cold_starts("v2")
    # This one never becomes ready: nothing is judged until somebody rolls back.
    await lane.kubectl("set", "image", "deployment/web", f"app={REPOSITORY}:missing")
    await until_held(lane, "v2", ran)
    await lane.kubectl("rollout", "undo", "deployment/web")
    await lane.rolled_out("deployment/web")
    await until_nothing_is_left(lane)
    assert lane.cold_starts("v2") == cold
