"""What people do to Deployments, on the real control plane: pause, undo, change again, scale, recreate.

Each pod of a revision has a node of its own and there are as many nodes as pods, so every node is one that is needed.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=6, prefix="deployments", image_bytes=100_000_000)
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


def deployment(replicas: int = PLAN.nodes, *, stop_seconds: float = 0.5, **spec: object) -> dict[str, object]:
    """A Deployment of v1 whose pods are ready two seconds after their start."""
    template = pod_template(
        "v1", PLAN, name="shop", startup_seconds=2, affinity=ONE_PER_NODE, terminationGracePeriodSeconds=30
    )
    metadata = template["metadata"]
    assert isinstance(metadata, dict)
    metadata["annotations"]["emulator.prewarm.dev/stop-seconds"] = str(stop_seconds)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "annotations": {"prewarm.dev/enabled": "true"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "shop"}}, "template": template, **spec},
    }


async def change(lane: Lane, tag: str) -> None:
    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:{tag}")


async def warm(lane: Lane, tag: str) -> None:
    async def everywhere() -> bool:
        return len(lane.downloads(tag)) == PLAN.nodes

    await eventually(everywhere)


async def withdrawn(lane: Lane) -> None:
    async def gone() -> bool:
        return not await lane.names(CACHES)

    await eventually(gone)


async def test_a_template_changed_while_paused_is_warmed_before_anybody_resumes(lane: Lane) -> None:
    controller = await lane.controller()
    await lane.apply(deployment())
    await lane.rolled_out("deployment/shop")
    before = await outcomes(controller, PLAN.nodes)
    await lane.kubectl("rollout", "pause", "deployment/shop")
    await change(lane, "v2")
    await warm(lane, "v2")
    await lane.kubectl("rollout", "resume", "deployment/shop")
    await lane.rolled_out("deployment/shop")
    after = await outcomes(controller, 2 * PLAN.nodes)

    assert after["hit_prewarmed"] - before["hit_prewarmed"] == PLAN.nodes, after
    assert lane.cold_starts("v2") == 0
    assert lane.downloads("v2") == dict.fromkeys(lane.emulator.fleet.nodes, 1)


async def test_going_back_from_a_release_that_never_gets_ready_pulls_nothing(lane: Lane) -> None:
    controller = await lane.controller()
    await lane.apply(deployment(progressDeadlineSeconds=4))
    await lane.rolled_out("deployment/shop")
    await outcomes(controller, PLAN.nodes)
    pulled = lane.downloads("v1")
    sick = {"op": "add", "path": "/spec/template/metadata/annotations/emulator.prewarm.dev~1startup-seconds"}
    image = {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{REPOSITORY}:sick"}
    await lane.kubectl("patch", "deployment/shop", "--type=json", "-p", json.dumps([{**sick, "value": "3600"}, image]))
    failed = "--for=jsonpath={.status.conditions[?(@.type=='Progressing')].reason}=ProgressDeadlineExceeded"
    await lane.kubectl("wait", "deployment/shop", failed, "--timeout=60s")
    await lane.kubectl("rollout", "undo", "deployment/shop")
    await lane.rolled_out("deployment/shop")
    await withdrawn(lane)

    assert lane.downloads("v1") == pulled
    assert max(lane.downloads("sick").values()) == 1


async def test_a_second_change_withdraws_what_the_first_still_wanted(lane: Lane) -> None:
    """One pull at a time, so that most of the first change's are still to come."""
    controller = await lane.controller(PREWARM_CLUSTER_PULLS="1")
    await lane.apply(deployment(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}))
    await lane.rolled_out("deployment/shop")
    await outcomes(controller, PLAN.nodes)
    await change(lane, "v2")

    async def pulling() -> bool:
        return bool(sum(lane.downloads("v2").values()))

    await eventually(pulling)
    await change(lane, "v3")
    await lane.rolled_out("deployment/shop")
    await withdrawn(lane)

    assert sum(lane.downloads("v2").values()) < PLAN.nodes
    assert set(lane.downloads("v3")) == set(lane.emulator.fleet.nodes)
    assert lane.cold_starts("v3") < PLAN.nodes


async def test_a_rollout_that_is_scaled_meanwhile_goes_on_warm(lane: Lane) -> None:
    """What the scale-out adds comes at once, of both revisions; what replaces old pods after it is warm."""
    controller = await lane.controller()
    strategy = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    await lane.apply(deployment(3, strategy=strategy, minReadySeconds=3))
    await lane.rolled_out("deployment/shop")
    await outcomes(controller, 3)
    await change(lane, "v2")

    async def begun() -> bool:
        return lane.cold_starts("v2") == 1

    await eventually(begun)
    await lane.kubectl("scale", "deployment/shop", f"--replicas={PLAN.nodes}")
    await lane.rolled_out("deployment/shop")
    counted = await outcomes(controller, 3 + PLAN.nodes)
    added = PLAN.nodes - 3

    assert lane.cold_starts("v2") <= 1 + added, counted
    assert lane.downloads("v2") == dict.fromkeys(lane.emulator.fleet.nodes, 1)


async def test_a_recreated_deployments_nodes_are_warmed_while_its_old_pods_end(lane: Lane) -> None:
    controller = await lane.controller()
    await lane.apply(deployment(stop_seconds=8, strategy={"type": "Recreate"}))
    await lane.rolled_out("deployment/shop")
    before = await outcomes(controller, PLAN.nodes)
    await change(lane, "v2")
    await lane.rolled_out("deployment/shop")
    after = await outcomes(controller, 2 * PLAN.nodes)

    assert after["hit_prewarmed"] - before["hit_prewarmed"] == PLAN.nodes, after
    assert lane.cold_starts("v2") == 0


async def test_every_image_that_a_pod_needs_is_there_and_no_excluded_one(lane: Lane) -> None:
    """Init container, sidecar and image volume beside the container; a tag that is always pulled; one left out."""
    controller = await lane.controller()
    found = deployment()
    metadata, spec = found["metadata"], found["spec"]
    assert isinstance(metadata, dict)
    assert isinstance(spec, dict)
    metadata["annotations"]["prewarm.dev/exclude-containers"] = "debug"
    container = spec["template"]["spec"]["containers"][0]

    def more(name: str, tag: str, **fields: object) -> dict[str, object]:
        return {"name": name, "image": f"{REPOSITORY}:{tag}", **fields}

    def images(version: str) -> dict[str, object]:
        return {
            "initContainers": [
                more("migrate", f"migrate-{version}"),
                more("proxy", f"proxy-{version}", restartPolicy="Always", imagePullPolicy="Always"),
            ],
            "containers": [{**container, "image": f"{REPOSITORY}:app-{version}"}, more("debug", f"debug-{version}")],
            "volumes": [{"name": "model", "image": {"reference": f"{REPOSITORY}:model-{version}"}}],
        }

    spec["template"]["spec"] |= images("v1")
    await lane.apply(found)
    await lane.rolled_out("deployment/shop")
    await lane.kubectl("rollout", "pause", "deployment/shop")
    await lane.kubectl("patch", "deployment/shop", "-p", json.dumps({"spec": {"template": {"spec": images("v2")}}}))
    wanted = ("migrate-v2", "proxy-v2", "app-v2", "model-v2")
    for tag in wanted:
        await warm(lane, tag)
    assert not lane.downloads("debug-v2")
    await lane.kubectl("rollout", "resume", "deployment/shop")
    await lane.rolled_out("deployment/shop")
    controller.check()

    assert [lane.cold_starts(tag) for tag in wanted] == [0] * len(wanted)
    assert lane.cold_starts("debug-v2") == PLAN.nodes
