"""Rollouts of every kind on the real control plane: hits by our account and by the emulated kubelets' own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import (
    REPOSITORY,
    Lane,
    LanePlan,
    claim_template,
    eventually,
    local_volume,
    outcomes,
    pod_template,
    running,
)
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=12, prefix="rollouts", image_bytes=100_000_000)
ENABLED = {"prewarm.dev/enabled": "true"}


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def workload(kind: str, tag: str, **spec: object) -> dict[str, object]:
    body: dict[str, object] = {
        "selector": {"matchLabels": {"app": "shop"}},
        "template": pod_template(tag, PLAN, name="shop", startup_seconds=2),
        **spec,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "shop", "annotations": ENABLED},
        "spec": body,
    }


async def change(lane: Lane, kind: str, tag: str) -> None:
    await lane.kubectl("set", "image", f"{kind}/shop", f"app={REPOSITORY}:{tag}")


async def test_a_stateful_sets_pods_find_their_image_from_the_second_on(lane: Lane) -> None:
    replicas = 5
    controller = await lane.controller()
    await lane.apply(workload("StatefulSet", "v1", replicas=replicas, serviceName="shop"))
    await lane.rolled_out("statefulset/shop")
    before = await outcomes(controller, replicas)
    await change(lane, "statefulset", "v2")
    await lane.rolled_out("statefulset/shop")
    after = await outcomes(controller, 2 * replicas)
    hits = after.get("hit_prewarmed", 0) - before.get("hit_prewarmed", 0)
    present = after.get("hit_present", 0) - before.get("hit_present", 0)

    assert hits + present >= replicas - 1, after
    assert lane.cold_starts("v2") == replicas - hits - present
    assert max(lane.downloads("v2").values()) == 1


async def test_only_ordinals_above_the_partition_are_prewarmed_for(lane: Lane) -> None:
    """Volumes keep every ordinal to one node. The first one comes with the change itself."""
    replicas, partition = 4, 1
    nodes = sorted(lane.emulator.fleet.nodes)[-replicas:]
    for ordinal, node in enumerate(nodes):
        await lane.apply(local_volume(lane.namespace, f"data-shop-{ordinal}", node))
    controller = await lane.controller()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}
    fields = {"replicas": replicas, "serviceName": "shop", "updateStrategy": strategy}
    await lane.apply(workload("StatefulSet", "v1", **fields, volumeClaimTemplates=[claim_template("data")]))
    await lane.rolled_out("statefulset/shop")
    before = await outcomes(controller, replicas)
    await change(lane, "statefulset", "v2")
    await lane.rolled_out("statefulset/shop")
    after = await outcomes(controller, 2 * replicas - partition)
    hits, late = (after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "late"))

    async def withdrawn() -> bool:
        return not await lane.names("imagecaches.prewarm.dev")

    await eventually(withdrawn)
    assert hits >= replicas - partition - 1, after
    assert lane.downloads("v2") == dict.fromkeys(nodes[partition:], 1)
    # A pod that was late waited for our pull, or its own went before it.
    assert replicas - partition - hits - late <= lane.cold_starts("v2") <= replicas - partition - hits, after


async def test_every_node_of_a_daemon_set_is_warm_before_its_pod_goes(lane: Lane) -> None:
    """But for one: the first pod (maxUnavailable 1) goes with the change itself, before anything can be pulled."""
    controller = await lane.controller()
    await lane.apply(workload("DaemonSet", "v1"))
    await lane.rolled_out("daemonset/shop")
    before = await outcomes(controller, PLAN.nodes)
    await change(lane, "daemonset", "v2")
    await lane.rolled_out("daemonset/shop")
    after = await outcomes(controller, 2 * PLAN.nodes)
    hits, late = (after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "late"))

    assert hits >= PLAN.nodes - 1, after
    assert lane.downloads("v2") == dict.fromkeys(lane.emulator.fleet.nodes, 1)
    # A pod that was late waited for our pull, or its own went before it.
    assert PLAN.nodes - hits - late <= lane.cold_starts("v2") <= PLAN.nodes - hits, after


async def test_a_daemon_set_that_waits_for_people_is_warmed_ahead(lane: Lane) -> None:
    controller = await lane.controller()
    await lane.apply(workload("DaemonSet", "v1", updateStrategy={"type": "OnDelete"}))
    await outcomes(controller, PLAN.nodes)
    await change(lane, "daemonset", "v2")

    async def warm() -> bool:
        return len(lane.downloads("v2")) == PLAN.nodes

    await eventually(warm)
    await lane.kubectl("delete", "pods", "-l", "app=shop", "--wait=false")
    after = await outcomes(controller, 2 * PLAN.nodes)
    assert after.get("hit_prewarmed", 0) == PLAN.nodes, after
    assert lane.cold_starts("v2") == 0


async def test_surging_daemon_pods_find_their_image_from_the_second_batch_on(lane: Lane) -> None:
    surge = 2
    controller = await lane.controller()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}}
    await lane.apply(workload("DaemonSet", "v1", updateStrategy=strategy))
    await lane.rolled_out("daemonset/shop")
    before = await outcomes(controller, PLAN.nodes)
    await change(lane, "daemonset", "v2")
    await lane.rolled_out("daemonset/shop")
    after = await outcomes(controller, 2 * PLAN.nodes)
    hits, late = (after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "late"))

    assert hits >= PLAN.nodes - surge, after
    assert lane.downloads("v2") == dict.fromkeys(lane.emulator.fleet.nodes, 1)
    # A pod that was late waited for our pull, or its own went before it.
    assert PLAN.nodes - hits - late <= lane.cold_starts("v2") <= PLAN.nodes - hits, after


async def test_a_stateful_set_that_waits_for_people_is_warmed_ahead(lane: Lane) -> None:
    """Each pod keeps to a node of its own, so all of them are needed."""
    controller = await lane.controller()
    await lane.kubectl("cordon", *sorted(lane.emulator.fleet.nodes)[3:])
    fields = {"replicas": 3, "serviceName": "shop", "updateStrategy": {"type": "OnDelete"}}
    manifest = workload("StatefulSet", "v1", **fields)
    spec = manifest["spec"]
    assert isinstance(spec, dict)
    rule = {"labelSelector": spec["selector"], "topologyKey": "kubernetes.io/hostname"}
    spec["template"]["spec"]["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}
    }
    await lane.apply(manifest)
    before = await outcomes(controller, 3)
    await change(lane, "statefulset", "v2")

    async def warm() -> bool:
        return len(lane.downloads("v2")) == 3

    await eventually(warm)
    await lane.kubectl("delete", "pods", "-l", "app=shop", "--wait=false")
    after = await outcomes(controller, 6)
    assert after.get("hit_prewarmed", 0) - before.get("hit_prewarmed", 0) == 3, after
    assert lane.cold_starts("v2") == 0
