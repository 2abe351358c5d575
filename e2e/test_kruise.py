"""OpenKruise's updates in place on the real API server and scheduler: every node is warm before its pod is touched."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from e2e import kruise
from e2e.cluster.selection import Cluster
from e2e.kruise import KruisePlayer, Object, Order
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

PLAN = LanePlan(nodes=12, prefix="kruise", image_bytes=100_000_000)
ONE_PER_NODE = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "shop"}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
}


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found
        await asyncio.to_thread(kruise.uninstall, cluster)


def spec(**fields: object) -> dict[str, object]:
    template = pod_template("v1", PLAN, name="shop", startup_seconds=2, affinity=ONE_PER_NODE)
    return {"selector": {"matchLabels": {"app": "shop"}}, "template": template, **fields}


def in_turn(pods: Sequence[Object]) -> Sequence[Object]:
    return pods


def from_the_last(pods: Sequence[Object]) -> Sequence[Object]:
    return sorted(pods, key=lambda pod: -int(str(pod["metadata"]["name"]).rpartition("-")[2]))


async def test_a_clone_sets_pods_find_their_image_from_the_second_batch_on(lane: Lane) -> None:
    """The kinds appear while the controller runs."""
    controller = await lane.controller()
    await asyncio.to_thread(kruise.install, lane.cluster)
    replicas, together = 12, 2
    strategy = {"type": "InPlaceIfPossible", "maxUnavailable": together}
    player = KruisePlayer(lane, "CloneSet", spec(replicas=replicas, updateStrategy=strategy))
    await player.declare()

    async def found() -> bool:
        samples = await controller.metrics()
        return samples.get("prewarm_reflector_objects{clonesets.apps.kruise.io}", 0) == 1

    await eventually(found)
    await player.start([{"name": f"shop-{number}"} for number in range(replicas)])
    await outcomes(controller, replicas)
    await player.change("v2")
    await player.update(in_turn, together=together)
    after = await outcomes(controller, 2 * replicas)

    assert after.get("hit_prewarmed", 0) >= replicas - together, after
    assert lane.cold_starts("v2") == replicas - after.get("hit_prewarmed", 0)
    assert lane.downloads("v2") == dict.fromkeys(lane.emulator.fleet.nodes, 1)


def youngest_first(pods: Sequence[Object]) -> Sequence[Object]:
    """As CloneSets go: the last to be ready, then the last to be created."""

    def age(pod: Object) -> tuple[float, float, str]:
        conditions = {found["type"]: found for found in pod["status"]["conditions"]}
        ready = datetime.fromisoformat(conditions["Ready"]["lastTransitionTime"]).timestamp()
        created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
        return -ready, -created, str(pod["metadata"]["uid"])

    return sorted(pods, key=age)


def by_falling_node_name(pods: Sequence[Object]) -> Sequence[Object]:
    return sorted(pods, key=lambda pod: str(pod["spec"]["nodeName"]), reverse=True)


PARTITION = 2


@pytest.mark.parametrize(
    ("kind", "strategy", "order"),
    [
        pytest.param(
            "StatefulSet",
            {"type": "RollingUpdate", "rollingUpdate": {"podUpdatePolicy": policy, "partition": PARTITION}},
            from_the_last,
            id=f"StatefulSet-{policy}",
        )
        for policy in ("InPlaceIfPossible", "InPlaceOnly")
    ]
    + [
        pytest.param(
            "CloneSet",
            {"type": "InPlaceIfPossible", "maxUnavailable": 1, "partition": PARTITION},
            youngest_first,
            id="CloneSet",
        ),
        pytest.param(
            "DaemonSet",
            {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "rollingUpdateType": "InPlaceIfPossible",
                    "maxUnavailable": 1,
                    "partition": PARTITION,
                },
            },
            by_falling_node_name,
            id="DaemonSet",
        ),
    ],
)
async def test_pods_that_the_partition_keeps_stay_cold(
    lane: Lane, kind: str, strategy: dict[str, object], order: Order
) -> None:
    """The first pod is touched with the change itself; every other one finds its image."""
    await asyncio.to_thread(kruise.install, lane.cluster)
    controller = await lane.controller()
    replicas = 6
    nodes = sorted(lane.emulator.fleet.nodes)[:replicas]
    fields: dict[str, object] = {} if kind == "DaemonSet" else {"replicas": replicas}
    player = KruisePlayer(lane, kind, spec(**fields, updateStrategy=strategy))
    pinned = kind == "DaemonSet"
    await player.create(
        [{"name": f"shop-{number}", **({"nodeName": node} if pinned else {})} for number, node in enumerate(nodes)]
    )
    before = await outcomes(controller, replicas)
    await player.change("v2")
    await player.update(order, keep=PARTITION)
    after = await outcomes(controller, 2 * replicas - PARTITION)
    hits, late = (after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "late"))

    assert hits >= replicas - PARTITION - 1, after
    updated = [
        str(pod["spec"]["nodeName"])
        for pod in await player.pods()
        if pod["spec"]["containers"][0]["image"] == f"{REPOSITORY}:v2"
    ]
    assert lane.downloads("v2") == dict.fromkeys(updated, 1)
    # A pod that was late waited for our pull, or its own went before it.
    assert replicas - PARTITION - hits - late <= lane.cold_starts("v2") <= replicas - PARTITION - hits, after


async def test_recreated_pods_with_volumes_are_warmed_for_on_their_nodes(lane: Lane) -> None:
    """Claims of claim templates, which OpenKruise's controller makes and pods name, decide about the nodes."""
    await asyncio.to_thread(kruise.install, lane.cluster)
    controller = await lane.controller()
    nodes = sorted(lane.emulator.fleet.nodes)[-3:]
    rolling = {"podUpdatePolicy": "ReCreate", "paused": True}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    template = claim_template("data")
    player = KruisePlayer(
        lane, "StatefulSet", spec(replicas=len(nodes), updateStrategy=strategy, volumeClaimTemplates=[template])
    )
    pods = []
    for ordinal, node in enumerate(nodes):
        claim = f"data-shop-{ordinal}"
        await lane.apply(local_volume(lane.namespace, claim, node))
        metadata = {"name": claim}
        await lane.apply({**template, "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata})
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
        pods.append({"name": f"shop-{ordinal}", "volumes": [volume]})
    await player.create(pods)
    await outcomes(controller, len(nodes))
    await player.change("v2")

    async def warm() -> bool:
        return lane.downloads("v2") == dict.fromkeys(nodes, 1)

    await eventually(warm)
    await player.recreate(from_the_last)
    after = await outcomes(controller, 2 * len(nodes))

    assert after.get("hit_prewarmed", 0) == len(nodes), after
    assert lane.downloads("v2") == dict.fromkeys(nodes, 1)


async def test_all_pods_of_a_single_batch_are_warm_if_it_is_paused_first(lane: Lane) -> None:
    """Few replicas in a single batch, which OpenKruise does not pre-download for."""
    await asyncio.to_thread(kruise.install, lane.cluster)
    controller = await lane.controller()
    strategy = {"type": "InPlaceOnly", "maxUnavailable": "100%", "paused": True}
    player = KruisePlayer(lane, "CloneSet", spec(replicas=2, updateStrategy=strategy))
    await player.create([{"name": f"shop-{number}"} for number in range(2)])
    await outcomes(controller, 2)
    await player.change("v2")

    async def warm() -> bool:
        return len(lane.downloads("v2")) == 2

    await eventually(warm)
    await player.update(in_turn, together=2)
    after = await outcomes(controller, 4)

    assert after.get("hit_prewarmed", 0) == 2, after
    assert lane.cold_starts("v2") == 0


async def test_an_advanced_daemon_set_is_warm_on_every_node_before_its_pod_is_touched(lane: Lane) -> None:
    await asyncio.to_thread(kruise.install, lane.cluster)
    controller = await lane.controller()
    rolling = {"rollingUpdateType": "InPlaceIfPossible", "maxUnavailable": 1}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    player = KruisePlayer(lane, "DaemonSet", spec(updateStrategy=strategy))
    nodes = sorted(lane.emulator.fleet.nodes)
    await player.create([{"name": f"shop-{node}", "nodeName": node} for node in nodes])
    await outcomes(controller, len(nodes))
    await player.change("v2")
    await player.update(by_falling_node_name)
    after = await outcomes(controller, 2 * len(nodes))

    assert after.get("hit_prewarmed", 0) >= len(nodes) - 1, after
    assert lane.downloads("v2") == dict.fromkeys(nodes, 1)


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        ("CloneSet", {"type": "InPlaceIfPossible", "maxUnavailable": 1, "paused": True}),
        ("StatefulSet", {"rollingUpdate": {"podUpdatePolicy": "InPlaceIfPossible", "paused": True}}),
    ],
)
async def test_nothing_is_pulled_twice_where_openkruise_pre_downloads(
    lane: Lane, kind: str, strategy: dict[str, object]
) -> None:
    await asyncio.to_thread(kruise.install, lane.cluster)
    controller = await lane.controller()
    replicas = 4
    player = KruisePlayer(lane, kind, spec(replicas=replicas, updateStrategy=strategy))
    await player.create([{"name": f"shop-{number}"} for number in range(replicas)])
    await outcomes(controller, replicas)
    await player.change("v2", pre_downloads=True)
    await player.change("v3")

    async def warm() -> bool:
        return len(lane.downloads("v3")) == replicas

    await eventually(warm)
    assert not lane.downloads("v2")


async def test_kinds_that_vanish_stop_nothing_else(lane: Lane) -> None:
    await asyncio.to_thread(kruise.install, lane.cluster)
    controller = await lane.controller()
    strategy = {"type": "InPlaceIfPossible", "paused": True}
    player = KruisePlayer(lane, "CloneSet", spec(replicas=2, updateStrategy=strategy))
    await player.create([{"name": f"shop-{number}"} for number in range(2)])
    await player.change("v2")

    async def planned() -> bool:
        return bool(await lane.names("imagecaches.prewarm.dev"))

    async def withdrawn() -> bool:
        return not await planned()

    await eventually(planned)
    await asyncio.to_thread(kruise.uninstall, lane.cluster)
    await eventually(withdrawn)
    assert await controller.get("/readyz") == "ok\n"
