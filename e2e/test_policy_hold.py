"""A policy's hold on a real control plane: warmed images outlive garbage collection until their rollout is over."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.emulator.nodes import NodePlan
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, pod_template, running
from e2e.manifests import install_definitions
from prewarm.simulation.specs import Timings

PLAN = LanePlan(nodes=0, prefix="hold", image_bytes=100_000_000)
# Each image takes 200 MB on disk, the helper 100 MB. With the old ones, in use, a disk is 40 % full, with the new ones
# 72 %: enough for garbage collection, too little for disk pressure.
NODES = NodePlan(
    count=3,
    prefix="hold",
    labels=PLAN.pool,
    image_disk=1.25e9,
    gc_high_percent=50,
    gc_low_percent=45,
    gc_minimum_age=2.0,
    gc_period=2.0,
    timings=Timings(image_list=2.0, node_status=2.0),
)
POLICY = "holding"


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        await found.emulator.add_nodes(NODES)
        policy = {"apiVersion": "prewarm.dev/v1alpha1", "kind": "PrewarmPolicy", "metadata": {"name": POLICY}}
        await found.apply({**policy, "spec": {"hold": "1h"}})
        yield found
        await found.kubectl("delete", "prewarmpolicies.prewarm.dev", POLICY)


def daemon_set(name: str, **annotations: str) -> Mapping[str, object]:
    """A DaemonSet whose pods change when people delete them: its images wait as long as the test likes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "annotations": {f"prewarm.dev/{key}": value for key, value in annotations.items()}},
        "spec": {
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template(f"{name}-v1", PLAN, name=name),
        },
    }


async def test_held_images_outlive_garbage_collection_until_their_rollout_is_over(lane: Lane) -> None:
    await lane.controller()
    await lane.apply(daemon_set("kept", enabled="true", policy=POLICY))
    await lane.apply(daemon_set("bare", enabled="true"))
    for name in ("kept", "bare"):
        path = "--for=jsonpath={.status.numberReady}=3"
        await lane.kubectl("wait", f"daemonset/{name}", path, "--timeout=60s")
        await lane.kubectl("set", "image", f"daemonset/{name}", f"app={REPOSITORY}:{name}-v2")

    def collected(tag: str) -> Counter[str]:
        return Counter(gone.node for gone in lane.emulator.removed if f"{REPOSITORY}:{tag}" in gone.names)

    # What is unused goes until the disk is below the lower threshold: the collection that took this one took all.
    await asyncio.wait_for(lane.emulator.until(lambda: set(collected("bare-v2")) == set(lane.emulator.fleet.nodes)), 90)
    assert not collected("kept-v2")
    # What was taken is missed on every node, and comes again.
    await asyncio.wait_for(lane.emulator.until(lambda: min(lane.downloads("bare-v2").values()) >= 2), 60)
    assert lane.downloads("kept-v2") == dict.fromkeys(lane.emulator.fleet.nodes, 1)
    path = '{.items[?(@.spec.hold=="1h")].metadata.annotations.prewarm\\.dev/workload}'
    holding = await lane.kubectl("get", "imagecaches.prewarm.dev", "-o", f"jsonpath={path}")
    assert set(holding.split()) == {f"daemonset/{lane.namespace}/kept"}

    await lane.kubectl("delete", "pods", "-l", "app=kept", "--wait=false")

    async def over() -> bool:
        images = await lane.kubectl("get", "imagecaches.prewarm.dev", "-o", "jsonpath={.items[*].spec.cacheSpec}")
        path = "jsonpath={.items[*].spec.containers[*].image}"
        held = await lane.kubectl("get", "pods", "-l", "prewarm.dev/puller", "-o", path)
        return "kept-v2" not in f"{images} {held}"

    await eventually(over)
    assert lane.cold_starts("kept-v2") == 0
