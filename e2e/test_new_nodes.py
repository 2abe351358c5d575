"""A node that joins during a rollout whose pods fit nowhere: it is warm before the first of them is bound to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.selection import Cluster
from e2e.controller import judged_starts
from e2e.emulator.nodes import NodePlan
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions
from prewarm.model.outcomes import Outcome
from prewarm.model.pods import Taint

PLAN = LanePlan(nodes=3, prefix="joining", image_bytes=100_000_000, varied=False)
GROUP = {"karpenter.sh/nodepool": "general"}
STARTING = Taint("node.example.com/agent-not-ready")


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def deployment() -> dict[str, object]:
    """Each pod takes most of a node; during a rollout there is one more than nodes."""
    template = pod_template("v1", PLAN, name="shop", startup_seconds=2)
    spec = template["spec"]
    assert isinstance(spec, dict)
    spec["containers"][0]["resources"] = {"requests": {"cpu": "5"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "annotations": {"prewarm.dev/enabled": "true"}},
        "spec": {
            "replicas": PLAN.nodes,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template,
        },
    }


async def test_a_node_that_joins_is_warm_before_the_pods_that_wait_for_it_come(lane: Lane) -> None:
    ((label, group),) = GROUP.items()
    await lane.kubectl("label", "nodes", "--selector", f"prewarm.dev/test={PLAN.prefix}", f"{label}={group}")
    controller = await lane.controller()
    await lane.apply(deployment())
    await lane.rolled_out("deployment/shop")
    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:v2")

    async def one_waits() -> bool:
        return len(await lane.names("pods", "--selector", "app=shop")) > PLAN.nodes

    await eventually(one_waits)
    joining = NodePlan(
        count=1,
        prefix="joined",
        labels={**PLAN.pool, **GROUP},
        taints=(STARTING,),
        bandwidth=PLAN.bandwidth,
        varied=False,
    )
    (profile,) = await lane.emulator.add_nodes(joining)

    async def warm() -> bool:
        return lane.downloads("v2")[profile.name] == 1

    await eventually(warm)
    await lane.kubectl("taint", "nodes", profile.name, f"{STARTING.key}-")
    await lane.rolled_out("deployment/shop")

    names = "jsonpath={.items[*].spec.nodeName}"
    used = (await lane.kubectl("get", "pods", "--selector", "app=shop", "--output", names)).split()
    assert profile.name in used, "no pod of the rollout came to the new node"
    pulls = [pull for pull in lane.emulator.pulls if pull.node == profile.name and pull.image == f"{REPOSITORY}:v2"]
    assert [pull.pod for pull in pulls if pull.downloaded_bytes and "-pull-" not in pull.pod] == []
    await outcomes(controller, 2 * PLAN.nodes)
    found: Any = await lane.get("pods", "--selector", "app=shop")
    there = {pod["metadata"]["uid"] for pod in found["items"] if pod["spec"]["nodeName"] == profile.name}
    judged = {uid: outcome for (uid, _), outcome in judged_starts(controller.log).items()}
    assert {uid: judged.get(uid) for uid in there} == dict.fromkeys(there, Outcome.HIT_PREWARMED)
