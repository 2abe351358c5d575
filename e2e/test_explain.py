"""`prewarm explain` and `prewarm plan` of real rollouts: what came of each pod and why, and what comes next."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=3, prefix="explained", image_bytes=500_000_000)
"""A pull takes five seconds."""
WORKLOAD = "deployment/{namespace}/shop"
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


async def prewarm(lane: Lane, *arguments: str) -> str:
    """Run a command as a person would, while the emulated kubelets go on."""
    where = ("--kubeconfig", str(lane.cluster.kubeconfig), "--context", lane.cluster.context)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "prewarm", *arguments, *where, "--system-namespace", lane.namespace),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def data(lane: Lane, *arguments: str) -> dict[str, Any]:
    found = json.loads(await prewarm(lane, *arguments, "--output", "json"))
    assert isinstance(found, dict)
    return found


async def pod_that_was(lane: Lane, outcome: str, tag: str) -> str:
    """Name of a pod whose start had an outcome, once the controller has written down what it judged."""
    names: list[str] = []

    async def remembered() -> bool:
        told = await data(lane, "explain", WORKLOAD.format(namespace=lane.namespace))
        image = f"{REPOSITORY}:{tag}"
        names[:] = [one["pod"] for one in told["starts"] if (one["outcome"], one["image"]) == (outcome, image)]
        return bool(names)

    await eventually(remembered, 30)
    return names[0]


async def why(lane: Lane, pod: str) -> str:
    (line,) = (await data(lane, "explain", f"pod/{lane.namespace}/{pod}"))["explanations"]
    assert isinstance(line, str)
    return line


async def deployed(lane: Lane, replicas: int = PLAN.nodes) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "annotations": {"prewarm.dev/enabled": "true"}},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "shop"}},
            "template": pod_template("v1", PLAN, name="shop", startup_seconds=3, affinity=ONE_PER_NODE),
        },
    }
    await lane.apply(deployment)
    await lane.rolled_out("deployment/shop")


async def change(lane: Lane, tag: str) -> None:
    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:{tag}")


async def test_a_warm_a_late_and_a_cold_pod_are_told_apart_with_the_reason(lane: Lane) -> None:
    controller = await lane.controller()
    await deployed(lane)
    await outcomes(controller, PLAN.nodes)

    await lane.kubectl("rollout", "pause", "deployment/shop")
    await change(lane, "warm")

    async def warm() -> bool:
        return len(lane.downloads("warm")) == PLAN.nodes

    await eventually(warm)
    await lane.kubectl("rollout", "resume", "deployment/shop")
    await lane.rolled_out("deployment/shop")
    line = await why(lane, await pod_that_was(lane, "hit_prewarmed", "warm"))
    assert "our pull had the image there" in line
    assert "before the pod was created" in line

    await lane.kubectl("rollout", "pause", "deployment/shop")
    await change(lane, "late")

    async def pulling() -> bool:
        events: Any = await lane.get("events", "--field-selector", "reason=Pulling")
        return sum(f"{REPOSITORY}:late" in event["message"] for event in events["items"]) == PLAN.nodes

    await eventually(pulling)
    await lane.kubectl("rollout", "resume", "deployment/shop")
    await lane.rolled_out("deployment/shop")
    line = await why(lane, await pod_that_was(lane, "late", "late"))
    assert "our pull was still under way when the pod asked for the image" in line

    await change(lane, "cold")
    await lane.rolled_out("deployment/shop")
    cold = await pod_that_was(lane, "miss_unpredicted", "cold")
    line = await why(lane, cold)
    assert "(pulling took " in line
    assert "announce the image before" in line
    printed = await prewarm(lane, "explain", WORKLOAD.format(namespace=lane.namespace))
    assert "it is covered by PrewarmPolicy default" in printed
    (row,) = (text for text in printed.splitlines() if cold in text)
    assert "miss_unpredicted" in row


async def test_the_plan_of_a_rollout_under_way_says_what_comes_next_and_where(lane: Lane) -> None:
    """The first pod of the new revision takes an hour until it is ready: the rollout stands still meanwhile."""
    controller = await lane.controller()
    cordoned = min(lane.emulator.fleet.nodes)
    await lane.kubectl("cordon", cordoned)
    await deployed(lane, PLAN.nodes - 1)
    await outcomes(controller, PLAN.nodes - 1)
    slow = {"metadata": {"annotations": {"emulator.prewarm.dev/startup-seconds": "3600"}}}
    image = {"spec": {"containers": [{"name": "app", "image": f"{REPOSITORY}:v2"}]}}
    await lane.kubectl("patch", "deployment/shop", "-p", json.dumps({"spec": {"template": {**slow, **image}}}))

    async def warm() -> bool:
        return len(lane.downloads("v2")) == PLAN.nodes - 1

    await eventually(warm)
    workload = WORKLOAD.format(namespace=lane.namespace)
    planned = await data(lane, "plan", "--workload", workload)
    explained = (await data(lane, "explain", workload))["next"]
    printed = await prewarm(lane, "plan", "--workload", workload)

    for entry in (demand_of(planned, "Rollout"), demand_of(explained, "Rollout")):
        assert entry["images"] == [f"{REPOSITORY}:v2"]
        assert sum(batch["pods"] for batch in entry["batches"]) == entry["pods"] == 1
        assert entry["batches"][0]["neededAt"] is not None
        assert [(node["probability"], node["present"]) for node in entry["nodes"]] == [(1, True)]
        assert entry["predictability"] == 1
        assert {"reason": "NodeUnschedulable", "nodes": 1} in entry["rejected"]
    assert "Rollout: 1 pods to come" in printed
    assert not lane.downloads("v2")[cordoned]


def demand_of(report: dict[str, Any], trigger: str) -> dict[str, Any]:
    (entry,) = (one for one in report["demands"] if one["trigger"] == trigger)
    assert isinstance(entry, dict)
    return entry
