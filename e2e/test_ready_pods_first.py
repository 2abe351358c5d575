"""minUpdatedReadyPods on the real control plane: an image spreads once so many of its pods are ready, and not before.

What does not happen is told by another workload, under no such policy: its image, changed later, is everywhere already.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="ready-first", image_bytes=50_000_000)


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found
        await found.kubectl("delete", "prewarmpolicies.prewarm.dev", namespace, "--ignore-not-found")


async def ask_for(lane: Lane, ready: int | str) -> dict[str, str]:
    """A policy of the test's own; returns the annotations of a workload under it."""
    manifest = {"apiVersion": "prewarm.dev/v1alpha1", "kind": "PrewarmPolicy", "metadata": {"name": lane.namespace}}
    await lane.apply({**manifest, "spec": {"rollout": {"minUpdatedReadyPods": ready}}})
    return {"prewarm.dev/enabled": "true", "prewarm.dev/policy": lane.namespace}


def workload(kind: str, name: str, annotations: dict[str, str], **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template(f"{name}-v1", PLAN, name=name, startup_seconds=1),
            **spec,
        },
    }


async def start(lane: Lane, held: dict[str, object]) -> None:
    """The workload that waits for ready pods, and one that waits for nothing and whose pods people delete."""
    enabled = {"prewarm.dev/enabled": "true"}
    controller = await lane.controller()
    await lane.apply(held)
    await lane.apply(workload("DaemonSet", "free", enabled, updateStrategy={"type": "OnDelete"}))
    await outcomes(controller, 2 * PLAN.nodes)


async def change(lane: Lane, workload: str, tag: str) -> None:
    await lane.kubectl("set", "image", workload, f"app={REPOSITORY}:{tag}")


async def everywhere(lane: Lane, tag: str) -> None:
    async def there() -> bool:
        return lane.downloads(tag) == dict.fromkeys(lane.emulator.fleet.nodes, 1)

    await eventually(there)


async def replace_one(lane: Lane, updated: int) -> None:
    """Delete a pod of the old revision, and return once its successor is ready."""
    pods = json.loads(await lane.kubectl("get", "pods", "-l", "app=held", "-o", "json"))["items"]
    old = [p["metadata"]["name"] for p in pods if p["spec"]["containers"][0]["image"].endswith("v1")]
    await lane.kubectl("delete", "pod", old[0])

    async def ready() -> bool:
        found = json.loads(await lane.kubectl("get", "pods", "-l", "app=held", "-o", "json"))["items"]
        new = [p for p in found if p["spec"]["containers"][0]["image"].endswith("v2")]
        conditions = [c for p in new for c in p["status"].get("conditions", []) if c["type"] == "Ready"]
        return len(new) == updated and all(c["status"] == "True" for c in conditions)

    await eventually(ready)


@pytest.mark.parametrize("asked", [2, "50%"])
async def test_an_image_spreads_once_enough_pods_are_ready_with_it(lane: Lane, asked: int | str) -> None:
    await start(lane, workload("DaemonSet", "held", await ask_for(lane, asked), updateStrategy={"type": "OnDelete"}))
    await change(lane, "daemonset/held", "held-v2")
    await change(lane, "daemonset/free", "free-v2")
    await everywhere(lane, "free-v2")
    assert not lane.downloads("held-v2")

    await replace_one(lane, updated=1)
    await change(lane, "daemonset/free", "free-v3")
    await everywhere(lane, "free-v3")
    assert sum(lane.downloads("held-v2").values()) == lane.cold_starts("held-v2") == 1

    await replace_one(lane, updated=2)
    await everywhere(lane, "held-v2")
    assert lane.cold_starts("held-v2") == 2
    await replace_one(lane, updated=3)
    assert lane.cold_starts("held-v2") == 2


async def test_a_release_that_never_becomes_ready_costs_no_pull(lane: Lane) -> None:
    strategy = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    held = workload("Deployment", "held", await ask_for(lane, 1), replicas=PLAN.nodes, strategy=strategy)
    await start(lane, held)
    sick = {"op": "add", "path": "/spec/template/metadata/annotations/emulator.prewarm.dev~1startup-seconds"}
    image = {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{REPOSITORY}:held-v2"}
    await lane.kubectl("patch", "deployment/held", "--type=json", "-p", json.dumps([{**sick, "value": "3600"}, image]))

    async def tried() -> bool:
        return lane.cold_starts("held-v2") == 1

    await eventually(tried)
    await change(lane, "daemonset/free", "free-v2")
    await everywhere(lane, "free-v2")
    assert sum(lane.downloads("held-v2").values()) == 1
