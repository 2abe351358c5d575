"""Scale-outs of ReplicaSets that nothing controls, on the real control plane."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="lone-sets", image_bytes=50_000_000)
ENABLED = {"prewarm.dev/enabled": "true"}


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


async def test_a_scale_out_of_a_lone_replica_set_finds_its_image(lane: Lane) -> None:
    controller = await lane.controller()
    await lane.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "web", "annotations": {**ENABLED, "prewarm.dev/headroom": "300%"}},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": pod_template("v1", PLAN, name="web"),
            },
        }
    )
    await outcomes(controller, 1)

    async def warm() -> bool:
        return len(lane.downloads("v1")) == PLAN.nodes

    await eventually(warm)
    await lane.kubectl("scale", "rs/web", "--replicas=4")
    counted = await outcomes(controller, 4)
    assert counted.get("hit_prewarmed", 0) >= 2, counted
    assert lane.cold_starts("v1") == 1
