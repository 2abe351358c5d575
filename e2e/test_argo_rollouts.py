"""Canaries and blue-green against the real controller of Argo Rollouts: warmed once proven, withdrawn on abort."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from e2e.argo import argo_controller, change, reach, set_status
from e2e.cluster.binaries import ArgoRollouts
from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=10, prefix="canaries", image_bytes=100_000_000)
REPLICAS = 10
PREVIEWS = 2
PULLED_BEFORE_ABORT = 2
"""Pulls that may have ended by the time the abort is seen, where one goes on at a time and takes a second or more."""
CACHES = "imagecaches.prewarm.dev"
ANNOTATIONS = {"prewarm.dev/enabled": "true"}
CANARY = {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}}
ONE_PER_NODE = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {
                "labelSelector": {"matchLabels": {"app": "shop"}},
                "matchLabelKeys": ["rollouts-pod-template-hash"],
                "topologyKey": "kubernetes.io/hostname",
            }
        ]
    }
}


@pytest.fixture
async def lane(cluster: Cluster, argo_rollouts: ArgoRollouts, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with (
        running(cluster, namespace, tmp_path, PLAN) as found,
        argo_controller(cluster, argo_rollouts, namespace, tmp_path / "rollouts-controller.log"),
    ):
        yield found


def rollout(tag: str, strategy: Mapping[str, object], **spec: object) -> dict[str, object]:
    template = pod_template(tag, PLAN, name="shop", startup_seconds=1, affinity=ONE_PER_NODE)
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "shop", "annotations": ANNOTATIONS},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "shop"}},
            "strategy": strategy,
            "template": template,
            **spec,
        },
    }


async def started(lane: Lane, strategy: Mapping[str, object], **spec: object) -> None:
    await lane.apply(rollout("v1", strategy, **spec))
    await reach(lane, "Healthy", updated=REPLICAS)


async def aborted(lane: Lane) -> None:
    """Abort; nothing is planned then and no puller pod is left, now or once the Rollout has come to rest."""

    async def withdrawn() -> bool:
        return not await lane.names(CACHES) and not await lane.names("pods", "-l", "prewarm.dev/puller=true")

    await set_status(lane, abort=True)
    await eventually(withdrawn)
    await reach(lane, "Degraded")
    assert await withdrawn()


async def blue_green(lane: Lane) -> dict[str, object]:
    """The strategy, with the Services that it names, which only people promote."""
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}}
    for name in ("active", "preview"):
        await lane.apply({**service, "metadata": {"name": name}})
    fields = {"activeService": "active", "previewService": "preview", "previewReplicaCount": PREVIEWS}
    return {"blueGreen": {**fields, "autoPromotionEnabled": False}}


async def test_a_promoted_canarys_later_pods_find_their_image(lane: Lane) -> None:
    controller = await lane.controller()
    await started(lane, CANARY)
    await outcomes(controller, REPLICAS)
    await change(lane, "v2")
    await reach(lane, "Paused")
    canaries = 2

    async def warm() -> bool:
        return len(lane.downloads("v2")) == PLAN.nodes

    await eventually(warm)
    assert lane.cold_starts("v2") == canaries
    await set_status(lane, pauseConditions=None)
    await reach(lane, "Healthy", updated=REPLICAS)
    after = await outcomes(controller, 2 * REPLICAS)
    assert after.get("hit_prewarmed", 0) == REPLICAS - canaries, after
    assert lane.cold_starts("v2") == canaries


async def test_an_aborted_canarys_plan_is_withdrawn(lane: Lane) -> None:
    """One pull at a time, so that most are still to come when the abort is seen."""
    controller = await lane.controller(PREWARM_CLUSTER_PULLS="1")
    await started(lane, CANARY)
    await outcomes(controller, REPLICAS)
    await change(lane, "v2")

    async def spreading() -> bool:
        return sum(lane.downloads("v2").values()) > lane.cold_starts("v2")

    await eventually(spreading)
    assert await lane.names(CACHES)
    await aborted(lane)
    canaries, under_way = 2, 1
    assert sum(lane.downloads("v2").values()) <= canaries + PULLED_BEFORE_ABORT + under_way


async def test_an_aborted_previews_plan_is_withdrawn(lane: Lane) -> None:
    """The preview's own pods were cold, as many are pulled for as had begun, and nothing of the stable pods moves."""
    controller = await lane.controller(PREWARM_CLUSTER_PULLS="1")
    await started(lane, await blue_green(lane))
    before = await outcomes(controller, REPLICAS)
    await change(lane, "v2")

    async def spreading() -> bool:
        return sum(lane.downloads("v2").values()) > lane.cold_starts("v2")

    await eventually(spreading)
    assert await lane.names(CACHES)
    await aborted(lane)
    assert sum(lane.downloads("v2").values()) <= PREVIEWS + PULLED_BEFORE_ABORT + 1
    after = await outcomes(controller, REPLICAS + PREVIEWS)
    assert sum(after.values()) - sum(before.values()) == PREVIEWS, after
    assert lane.cold_starts("v2") == PREVIEWS
    assert set(lane.downloads("v1").values()) == {1}


async def test_a_canary_that_does_not_become_ready_spreads_nowhere(lane: Lane) -> None:
    await lane.controller()
    await started(lane, CANARY)
    sick = {"op": "add", "path": "/spec/template/metadata/annotations/emulator.prewarm.dev~1startup-seconds"}
    image = {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{REPOSITORY}:sick"}
    patch = [{**sick, "value": "3600"}, image]
    await lane.kubectl("patch", "rollouts.argoproj.io/shop", "--type=json", "-p", json.dumps(patch))

    async def tried() -> bool:
        return lane.cold_starts("sick") >= 2

    await eventually(tried)
    await asyncio.sleep(3)
    assert lane.cold_starts("sick") == sum(lane.downloads("sick").values())


async def test_a_preview_is_proved_before_the_other_pods_nodes_are_warmed(lane: Lane) -> None:
    controller = await lane.controller()
    await started(lane, await blue_green(lane))
    before = await outcomes(controller, REPLICAS)
    await change(lane, "v2")

    async def warm() -> bool:
        return len(lane.downloads("v2")) == PLAN.nodes

    await eventually(warm)
    await set_status(lane, pauseConditions=None)
    after = await outcomes(controller, 2 * REPLICAS)
    assert after.get("hit_prewarmed", 0) - before.get("hit_prewarmed", 0) == REPLICAS - PREVIEWS, after
    assert lane.cold_starts("v2") == PREVIEWS


async def test_a_rollout_takes_its_template_from_a_deployment(lane: Lane) -> None:
    controller = await lane.controller()
    template = pod_template("v1", PLAN, name="shop", startup_seconds=1, affinity=ONE_PER_NODE)
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "source"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "shop"}}, "template": template},
    }
    await lane.apply(deployment)
    found = rollout("v1", CANARY)
    spec = found["spec"]
    assert isinstance(spec, dict)
    del spec["template"], spec["selector"]
    spec["workloadRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "source"}
    await lane.apply(found)
    await reach(lane, "Healthy", updated=REPLICAS)
    await outcomes(controller, REPLICAS)
    await lane.kubectl("set", "image", "deployment/source", f"app={REPOSITORY}:v2")
    await reach(lane, "Paused")

    async def warm() -> bool:
        return len(lane.downloads("v2")) == PLAN.nodes

    await eventually(warm)
    canaries = 2
    assert lane.cold_starts("v2") == canaries
    await set_status(lane, pauseConditions=None)
    await reach(lane, "Healthy", updated=REPLICAS)
    after = await outcomes(controller, 2 * REPLICAS)
    assert after.get("hit_prewarmed", 0) == REPLICAS - canaries, after
    assert lane.cold_starts("v2") == canaries
