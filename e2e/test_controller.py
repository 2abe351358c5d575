"""The whole path on a real control plane: one annotation, a rollout, hits; restarts, two instances, opting out."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.lane import eventually
from e2e.manifests import install_definitions
from prewarm.cluster.connection import Connection
from prewarm.simulation.registry import Registries

NODES, REPLICAS = 16, 12
POOL = {"prewarm.dev/test": "controller"}
REPOSITORY = "registry.test/shop"
IMAGE_BYTES, BANDWIDTH = 200_000_000, 100e6
STARTS = "prewarm_container_starts_total"
HIT = f"{STARTS}{{hit_prewarmed}}"
ROLLOUT_SECONDS = 120


@dataclass
class Lane:
    """A namespace with emulated nodes; its controllers keep their lease and memory there too."""

    cluster: Cluster
    namespace: str
    emulator: Emulator
    stack: AsyncExitStack
    directory: Path

    async def controller(self, name: str = "prewarm", **settings: str) -> ControllerProcess:
        """Start a controller that ends with the test."""
        environment = {"PREWARM_NAMESPACE": self.namespace, "PREWARM_PERSIST_SECONDS": "0.5", **settings}
        controller = ControllerProcess(self.cluster.kubeconfig, self.directory / f"{name}.log", environment)
        self.stack.push_async_callback(controller.stop)
        await controller.start()
        return controller

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """kubectl in the namespace, while the emulated kubelets go on."""
        self.emulator.check()
        return await asyncio.to_thread(
            self.cluster.kubectl, "--namespace", self.namespace, *arguments, manifest=manifest
        )

    async def get(self, *what: str) -> Mapping[str, object]:
        """An object or list."""
        found = json.loads(await self.kubectl("get", *what, "-o", "json", "--show-managed-fields"))
        assert isinstance(found, dict)
        return found

    async def names(self, kind: str, *options: str) -> list[str]:
        """Names of the objects of a kind."""
        return (await self.kubectl("get", kind, *options, "-o", "name")).split()

    async def deploy(self, tag: str, **annotations: str) -> None:
        """Write the Deployment as a person would, and wait until it is rolled out."""
        marked = {f"prewarm.dev/{name}": value for name, value in annotations.items()}
        await self.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(deployment(tag, marked)))
        await self.rolled_out()

    async def change(self, tag: str) -> None:
        """Change the image."""
        await self.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:{tag}")

    async def rolled_out(self) -> None:
        """Return once all pods are of the last template and ready."""
        await self.kubectl("rollout", "status", "deployment/shop", f"--timeout={ROLLOUT_SECONDS}s")

    async def ready_of(self, tag: str) -> int:
        """Pods of an image that are ready."""
        path = '{range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready}{"\\n"}{end}'
        lines = (await self.kubectl("get", "pods", "-l", "app=shop", "-o", f"jsonpath={path}")).splitlines()
        return lines.count(f"{REPOSITORY}:{tag} true")

    def downloads(self, tag: str) -> Counter[str]:
        """How often each node downloaded an image, by the kubelets' own account."""
        return Counter(
            pull.node
            for pull in self.emulator.pulls
            if pull.image == f"{REPOSITORY}:{tag}" and not pull.error and pull.downloaded_bytes
        )


def deployment(tag: str, annotations: Mapping[str, str]) -> Mapping[str, object]:
    """A stock Deployment of REPLICAS pods, rolled out a few at a time."""
    container = {
        "name": "app",
        "image": f"{REPOSITORY}:{tag}",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    }
    template = {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"nodeSelector": POOL, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "annotations": dict(annotations)},
        "spec": {
            "replicas": REPLICAS,
            "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template,
        },
    }


@asynccontextmanager
async def emulated(cluster: Cluster) -> AsyncIterator[Emulator]:
    """Nodes of their own for the test, gone afterwards."""
    registries = Registries(convention=Catalog({REPOSITORY: IMAGE_BYTES}))
    plan = NodePlan(count=NODES, prefix="shop", labels=POOL, bandwidth=BANDWIDTH)
    options = EmulatorOptions(nodes=plan, registries=registries, delete_nodes=True)
    async with Emulator(Connection.load(cluster.kubeconfig, cluster.context), options) as emulator:
        yield emulator


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(emulated(cluster))
        yield Lane(cluster, namespace, emulator, stack, tmp_path)


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
    await lane.deploy("v1")
    stock = await lane.get("deployment", "shop")
    controller = await lane.controller()
    await controller.wait_leading()
    await lane.kubectl("annotate", "deployment/shop", "prewarm.dev/enabled=true")
    await lane.change("v2")
    await lane.rolled_out()
    metrics = await until(controller, HIT, 1)
    found = await lane.get("deployment", "shop")

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
    controller = await lane.controller()
    await controller.wait_leading()
    await lane.deploy("v1", enabled="true")
    await lane.change("v2")

    async def planned() -> bool:
        return bool(await lane.names("imagecaches.prewarm.dev"))

    async def gone() -> bool:
        return not await planned() and not await lane.names("pods", "-l", "prewarm.dev/puller")

    await eventually(planned)
    await lane.kubectl("annotate", "deployment/shop", "prewarm.dev/enabled-")
    await eventually(gone)
    await lane.rolled_out()
    labels = await lane.kubectl("get", "pods,replicasets,deployments", "-o", "json")
    assert "prewarm.dev/puller" not in labels
    assert "prewarm.dev/plan" not in labels


async def test_killing_the_controller_mid_rollout_repeats_no_pull_and_counts_no_start_twice(lane: Lane) -> None:
    first = await lane.controller("first", PREWARM_LEASE_DURATION_SECONDS="3")
    await first.wait_leading()
    await lane.deploy("v1", enabled="true")
    before = total(await until(first, f"{STARTS}{{miss_unpredicted}}", 1))
    assert before <= REPLICAS
    await lane.change("v2")

    async def half_way() -> bool:
        return await lane.ready_of("v2") >= REPLICAS // 3

    await eventually(half_way)
    counted = total(await first.metrics())
    first.kill()
    second = await lane.controller("second", PREWARM_LEASE_DURATION_SECONDS="3")
    await second.wait_leading()
    await lane.rolled_out()
    metrics = await until(second, HIT, 1)

    assert max(lane.downloads("v2").values()) == 1
    assert REPLICAS < counted + total(metrics) <= 2 * REPLICAS


async def test_one_of_two_instances_acts_and_the_other_takes_over(lane: Lane) -> None:
    first = await lane.controller("first", PREWARM_LEASE_DURATION_SECONDS="3")
    await first.wait_leading()
    second = await lane.controller("second", PREWARM_LEASE_DURATION_SECONDS="3")
    await lane.deploy("v1", enabled="true")
    assert [(await instance.metrics())["prewarm_leader"] for instance in (first, second)] == [1, 0]
    assert await second.get("/readyz") == "ok\n"
    await first.stop()
    await second.wait_leading()
    await lane.change("v2")
    await lane.rolled_out()
    metrics = await until(second, HIT, 1)
    assert max(lane.downloads("v2").values()) == 1
    assert total(metrics) <= 2 * REPLICAS


async def test_a_hand_written_cache_is_pulled_and_nothing_is_written_to_it_but_status(lane: Lane) -> None:
    controller = await lane.controller()
    await controller.wait_leading()
    cache = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": "base"},
        "spec": {"cacheSpec": [{"images": [f"{REPOSITORY}:v7"], "nodeSelector": POOL}]},
    }
    await lane.kubectl("create", "-f", "-", manifest=yaml.safe_dump(cache))
    await lane.kubectl("wait", "imagecaches.prewarm.dev/base", "--for=condition=Ready", "--timeout=60s")
    found = await lane.get("imagecaches.prewarm.dev", "base")

    metadata = found["metadata"]
    assert isinstance(metadata, Mapping)
    assert not {"finalizers", "annotations", "labels"} & metadata.keys()
    ours = [entry for entry in metadata["managedFields"] if entry["manager"] == "prewarm"]
    assert [entry["subresource"] for entry in ours] == ["status"]
    assert managers(found) == {"kubectl-create", "prewarm"}
    assert lane.downloads("v7") == Counter(dict.fromkeys(lane.emulator.fleet.nodes, 1))
