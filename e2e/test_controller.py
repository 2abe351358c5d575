"""The whole path on a real control plane: one annotation, a rollout, hits; restarts, two instances, opting out."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.lane import REPOSITORY, STARTS, Lane, LanePlan, eventually, pod_template, running
from e2e.manifests import install_definitions

REPLICAS = 12
PLAN = LanePlan(nodes=16, prefix="controller")
MANAGED = "--show-managed-fields"
HIT = f"{STARTS}{{hit_prewarmed}}"


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


async def deploy(lane: Lane, tag: str, **annotations: str) -> None:
    """Write a stock Deployment, rolled out a few at a time, as a person would; wait until it is rolled out."""
    requests = {"cpu": "1", "memory": "1Gi"}
    container = {"name": "app", "image": f"{REPOSITORY}:{tag}", "resources": {"requests": requests}}
    await lane.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "shop", "annotations": {f"prewarm.dev/{k}": v for k, v in annotations.items()}},
            "spec": {
                "replicas": REPLICAS,
                "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
                "selector": {"matchLabels": {"app": "shop"}},
                "template": pod_template(tag, PLAN, name="shop", containers=[container]),
            },
        }
    )
    await lane.rolled_out("deployment/shop")


async def change(lane: Lane, tag: str) -> None:
    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:{tag}")


async def ready_of(lane: Lane, tag: str) -> int:
    """Pods of an image that are ready."""
    path = '{range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready}{"\\n"}{end}'
    lines = (await lane.kubectl("get", "pods", "-l", "app=shop", "-o", f"jsonpath={path}")).splitlines()
    return lines.count(f"{REPOSITORY}:{tag} true")


def total(metrics: Mapping[str, float]) -> float:
    """Container starts counted so far."""
    return sum(value for name, value in metrics.items() if name.startswith(f"{STARTS}{{"))


def managers(found: Mapping[str, object]) -> set[str]:
    """Field managers of an object."""
    metadata = found["metadata"]
    assert isinstance(metadata, Mapping)
    fields = metadata["managedFields"]
    assert isinstance(fields, Sequence)
    return {str(entry["manager"]) for entry in fields}


async def until(controller: ControllerProcess, name: str, at_least: float) -> Mapping[str, float]:
    """The metrics, once one of them has reached a value."""
    async with asyncio.timeout(60):
        while (metrics := await controller.metrics()).get(name, 0.0) < at_least:
            controller.check()
            await asyncio.sleep(0.2)
    return metrics


async def test_one_annotation_is_enough_for_hits_and_leaves_the_deployment_alone(lane: Lane) -> None:
    await deploy(lane, "v1")
    stock = await lane.get("deployment", "shop", MANAGED)
    controller = await lane.controller()
    await lane.kubectl("annotate", "deployment/shop", "prewarm.dev/enabled=true")
    await change(lane, "v2")
    await lane.rolled_out("deployment/shop")
    metrics = await until(controller, HIT, 1)
    found = await lane.get("deployment", "shop", MANAGED)

    assert managers(found) <= managers(stock) | {"kubectl-annotate", "kubectl-set"}
    metadata = found["metadata"]
    assert isinstance(metadata, Mapping)
    assert "finalizers" not in metadata
    assert set(metadata["annotations"]) == {
        "deployment.kubernetes.io/revision",
        "kubectl.kubernetes.io/last-applied-configuration",
        "prewarm.dev/enabled",
    }
    assert max(lane.downloads("v2").values()) == 1
    assert metrics[HIT] >= REPLICAS / 2, metrics
    events = await lane.kubectl("get", "events", "--field-selector", "reason=Prewarming", "-o", "name")
    assert len(events.split()) == 1


async def test_opting_out_leaves_nothing_behind(lane: Lane) -> None:
    await lane.controller()
    await deploy(lane, "v1", enabled="true")
    await change(lane, "v2")

    async def planned() -> bool:
        return bool(await lane.names("imagecaches.prewarm.dev"))

    async def gone() -> bool:
        return not await planned() and not await lane.names("pods", "-l", "prewarm.dev/puller")

    await eventually(planned)
    await lane.kubectl("annotate", "deployment/shop", "prewarm.dev/enabled-")
    await eventually(gone)
    await lane.rolled_out("deployment/shop")
    labels = await lane.kubectl("get", "pods,replicasets,deployments", "-o", "json")
    assert "prewarm.dev/puller" not in labels
    assert "prewarm.dev/plan" not in labels


async def test_killing_the_controller_mid_rollout_repeats_no_pull_and_counts_no_start_twice(lane: Lane) -> None:
    first = await lane.controller("first")
    await deploy(lane, "v1", enabled="true")
    before = total(await until(first, f"{STARTS}{{miss_unpredicted}}", 1))
    assert before <= REPLICAS
    await change(lane, "v2")

    async def half_way() -> bool:
        return await ready_of(lane, "v2") >= REPLICAS // 3

    await eventually(half_way)
    counted = total(await first.metrics())
    first.kill()
    second = await lane.controller("second")
    await lane.rolled_out("deployment/shop")
    metrics = await until(second, HIT, 1)

    assert max(lane.downloads("v2").values()) == 1
    assert REPLICAS < counted + total(metrics) <= 2 * REPLICAS


async def test_one_of_two_instances_acts_and_the_other_takes_over(lane: Lane) -> None:
    first = await lane.controller("first")
    second = await lane.controller("second", leads=False)
    await deploy(lane, "v1", enabled="true")
    assert [(await instance.metrics())["prewarm_leader"] for instance in (first, second)] == [1, 0]
    assert await second.get("/readyz") == "ok\n"
    await first.stop()
    await second.wait_leading()
    await change(lane, "v2")
    await lane.rolled_out("deployment/shop")
    metrics = await until(second, HIT, 1)
    assert max(lane.downloads("v2").values()) == 1
    assert total(metrics) <= 2 * REPLICAS


async def test_a_hand_written_cache_is_pulled_and_nothing_is_written_to_it_but_status(lane: Lane) -> None:
    await lane.controller()
    cache = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": "base"},
        "spec": {"cacheSpec": [{"images": [f"{REPOSITORY}:v7"], "nodeSelector": PLAN.pool}]},
    }
    await lane.kubectl("create", "-f", "-", manifest=json.dumps(cache))
    await lane.kubectl("wait", "imagecaches.prewarm.dev/base", "--for=condition=Ready", "--timeout=60s")
    found = await lane.get("imagecaches.prewarm.dev", "base", MANAGED)

    metadata = found["metadata"]
    assert isinstance(metadata, Mapping)
    assert not {"finalizers", "annotations", "labels"} & metadata.keys()
    ours = [entry for entry in metadata["managedFields"] if entry["manager"] == "prewarm"]
    assert [entry["subresource"] for entry in ours] == ["status"]
    assert managers(found) == {"kubectl-create", "prewarm"}
    assert lane.downloads("v7") == Counter(dict.fromkeys(lane.emulator.fleet.nodes, 1))
