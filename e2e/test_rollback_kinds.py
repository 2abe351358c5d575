"""Rollbacks of StatefulSets, DaemonSets, Rollouts and CloneSets on the real control plane: nothing is pulled again.

There are as many nodes as pods and one pod of a revision on each, so every node is one that a rollback needs.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e import argo, kruise
from e2e.cluster.binaries import ArgoRollouts
from e2e.cluster.selection import Cluster
from e2e.holding import holding_policy, until_held, until_nothing_is_left
from e2e.kruise import KruisePlayer
from e2e.lane import REPOSITORY, Lane, LanePlan, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=3, prefix="rollbacks", image_bytes=50_000_000)


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


@pytest.fixture
async def annotations(lane: Lane) -> AsyncIterator[dict[str, str]]:
    async with holding_policy(lane) as found:
        yield found


def template() -> dict[str, object]:
    """Pods of v1, one on a node, that end slowly enough for what they used to be seen."""
    rule = {"labelSelector": {"matchLabels": {"app": "shop"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
    found = pod_template("v1", PLAN, name="shop", startup_seconds=1, affinity=affinity)
    metadata, spec = found["metadata"], found["spec"]
    assert isinstance(metadata, dict)
    assert isinstance(spec, dict)
    metadata["annotations"]["emulator.prewarm.dev/stop-seconds"] = "8"
    spec["terminationGracePeriodSeconds"] = 30
    return found


def nodes(lane: Lane) -> set[str]:
    return set(lane.emulator.fleet.nodes)


async def broken_and_back(lane: Lane, workload: dict[str, object], stuck: str = "") -> None:
    """Roll out, change to a release that never becomes ready, and roll back once all that it replaces is held.

    A StatefulSet goes back only once the pod that is `stuck` is deleted.
    """
    name = f"{str(workload['kind']).lower()}/shop"
    controller = await lane.controller()
    await lane.apply(workload)
    await lane.rolled_out(name)
    await outcomes(controller, PLAN.nodes)
    pulled = lane.downloads("v1")
    await lane.kubectl("set", "image", name, f"app={REPOSITORY}:missing")
    await until_held(lane, "v1", nodes(lane))
    if stuck:
        await lane.kubectl("wait", name, "--for=jsonpath={.status.updatedReplicas}=1", "--timeout=60s")
    await lane.kubectl("rollout", "undo", name)
    if stuck:
        await lane.kubectl("delete", "pod", stuck, "--force", "--grace-period=0")
    await lane.rolled_out(name)
    await until_nothing_is_left(lane)
    assert lane.downloads("v1") == pulled


def workload(kind: str, annotations: dict[str, str], **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "shop", "annotations": annotations},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": template(), **spec},
    }


async def test_a_broken_release_of_a_stateful_set_leaves_what_it_replaces_held(
    lane: Lane, annotations: dict[str, str]
) -> None:
    own = {"replicas": PLAN.nodes, "serviceName": "shop", "podManagementPolicy": "Parallel"}
    await broken_and_back(lane, workload("StatefulSet", annotations, **own), stuck=f"shop-{PLAN.nodes - 1}")


async def test_a_broken_release_of_a_daemon_set_leaves_what_it_replaces_held(
    lane: Lane, annotations: dict[str, str]
) -> None:
    await broken_and_back(lane, workload("DaemonSet", annotations))


async def test_an_aborted_canary_goes_back_to_what_is_held(
    lane: Lane, annotations: dict[str, str], cluster: Cluster, argo_rollouts: ArgoRollouts, tmp_path: Path
) -> None:
    """The pod that the canary has replaced comes back where it was."""
    steps = {"canary": {"maxSurge": 0, "maxUnavailable": 1, "steps": [{"setWeight": 34}, {"pause": {}}]}}
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": argo.NAME, "annotations": annotations},
        "spec": {
            "replicas": PLAN.nodes,
            "selector": {"matchLabels": {"app": "shop"}},
            "strategy": steps,
            "template": template(),
        },
    }
    async with argo.argo_controller(cluster, argo_rollouts, lane.namespace, tmp_path / "rollouts-controller.log"):
        controller = await lane.controller()
        await lane.apply(rollout)
        await argo.reach(lane, "Healthy", updated=PLAN.nodes)
        await outcomes(controller, PLAN.nodes)
        pulled = lane.downloads("v1")
        await argo.change(lane, "v2")
        await argo.reach(lane, "Paused")
        await until_held(lane, "v1", nodes(lane))
        await argo.set_status(lane, abort=True)
        await argo.reach(lane, "Degraded")
        await argo.change(lane, "v1")
        await argo.reach(lane, "Healthy", updated=PLAN.nodes)
        await until_nothing_is_left(lane)
        assert lane.downloads("v1") == pulled


async def test_a_clone_set_goes_back_in_place_to_what_is_held(lane: Lane, annotations: dict[str, str]) -> None:
    await asyncio.to_thread(kruise.install, lane.cluster)
    try:
        controller = await lane.controller()
        strategy = {"type": "InPlaceIfPossible", "maxUnavailable": 1}
        spec = {
            "replicas": PLAN.nodes,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template(),
            "updateStrategy": strategy,
        }
        player = KruisePlayer(lane, "CloneSet", spec)
        await player.declare()
        words = [f"{key}={value}" for key, value in annotations.items()]
        await lane.kubectl("annotate", player.resource, kruise.NAME, "--overwrite", *words)
        await player.start([{"name": f"shop-{number}"} for number in range(PLAN.nodes)])
        await outcomes(controller, PLAN.nodes)
        pulled = lane.downloads("v1")
        await player.change("v2")
        await until_held(lane, "v1", nodes(lane))
        await player.update(lambda pods: pods, keep=2)
        await until_held(lane, "v1", nodes(lane))
        await player.change("v1")
        await player.update(lambda pods: pods)
        await until_nothing_is_left(lane)
        assert lane.downloads("v1") == pulled
    finally:
        await asyncio.to_thread(kruise.uninstall, lane.cluster)
