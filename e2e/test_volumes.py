"""Pods bound to local volumes on the real control plane: their nodes are known, so all of them start warm."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, claim_template, local_volume, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=12, prefix="volumes", image_bytes=100_000_000)
REPLICAS = 6


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def stateful_set() -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "shop", "annotations": {"prewarm.dev/enabled": "true"}},
        "spec": {
            "replicas": REPLICAS,
            "serviceName": "shop",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "shop"}},
            "template": pod_template("v1", PLAN, name="shop", startup_seconds=2),
            "volumeClaimTemplates": [claim_template("data")],
        },
    }


async def test_pods_with_local_volumes_are_warmed_for_on_their_nodes_and_no_other(lane: Lane) -> None:
    # The largest nodes are those that the scheduler would take without the volumes; these are the last by name.
    nodes = sorted(lane.emulator.fleet.nodes)[-REPLICAS:]
    for ordinal, node in enumerate(nodes):
        await lane.apply(local_volume(lane.namespace, f"data-shop-{ordinal}", node))
    controller = await lane.controller()
    await lane.apply(stateful_set())
    await lane.rolled_out("statefulset/shop")
    before = await outcomes(controller, REPLICAS)
    await lane.kubectl("set", "image", "statefulset/shop", f"app={REPOSITORY}:v2")
    await lane.rolled_out("statefulset/shop")
    after = await outcomes(controller, 2 * REPLICAS)
    hits = after.get("hit_prewarmed", 0) - before.get("hit_prewarmed", 0)

    assert lane.downloads("v2") == Counter(nodes)
    assert hits >= REPLICAS - 1, after
    assert lane.cold_starts("v2") == REPLICAS - hits
