"""A canary that is a Deployment of its own, on the real control plane: warmed for once healthy, withdrawn with it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=6, prefix="plain-canary", image_bytes=50_000_000)
REPLICAS = 4


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


@pytest.fixture
async def policy(lane: Lane) -> AsyncIterator[str]:
    """A policy of the test's own that knows canaries by the label track."""
    canary = {"selector": {"matchLabels": {"track": "canary"}}, "sharedLabel": "app"}
    manifest = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": lane.namespace},
        "spec": {"canary": canary, "rollout": {"minUpdatedReadyPods": 1}},
    }
    await lane.apply(manifest)
    yield lane.namespace
    await lane.kubectl("delete", "prewarmpolicies.prewarm.dev", lane.namespace)


def deployment(name: str, track: str, tag: str, replicas: int, **annotations: str) -> dict[str, object]:
    template = pod_template(tag, PLAN, name="web", startup_seconds=1)
    metadata = template["metadata"]
    assert isinstance(metadata, dict)
    labels = {"app": "web", "track": track}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {**template, "metadata": {**metadata, "labels": labels}},
        },
    }


async def planned(lane: Lane) -> bool:
    return bool(await lane.names("imagecaches.prewarm.dev"))


async def test_stable_nodes_are_warm_before_the_canary_is_promoted(lane: Lane, policy: str) -> None:
    controller = await lane.controller()
    covered = {"prewarm.dev/enabled": "true", "prewarm.dev/policy": policy}
    await lane.apply(deployment("web", "stable", "v1", REPLICAS, **covered))
    await lane.rolled_out("deployment/web")
    before = await outcomes(controller, REPLICAS)
    # It never becomes ready: nothing spreads.
    await lane.apply(deployment("web-canary", "canary", "missing", 1))

    async def fails() -> bool:
        return "ImagePull" in await lane.kubectl("get", "pods", "-l", "track=canary")

    async def withdrawn() -> bool:
        return not await planned(lane)

    await eventually(fails)
    assert await withdrawn()

    await lane.apply(deployment("web-canary", "canary", "v2", 1))
    await lane.rolled_out("deployment/web-canary")

    async def warm() -> bool:
        return len(lane.downloads("v2")) > REPLICAS

    await eventually(warm)
    await lane.kubectl("scale", "deployment/web-canary", "--replicas=0")
    await eventually(withdrawn)
    cold = lane.cold_starts("v2")
    await lane.kubectl("set", "image", "deployment/web", f"app={REPOSITORY}:v2")
    await lane.rolled_out("deployment/web")
    after = await outcomes(controller, 2 * REPLICAS)
    hits = sum(after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "hit_present"))
    assert hits >= REPLICAS - 1, after
    assert lane.cold_starts("v2") - cold <= 1
