"""`prewarm warm`, `status` and `plan` as a pipeline runs them, on a real control plane with emulated nodes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.manifests import install_definitions
from prewarm.cluster.connection import Connection
from prewarm.simulation.registry import Registries

POOL = {"prewarm.dev/test": "warm"}
SELECTOR = "prewarm.dev/test=warm"
REPOSITORY = "registry.test/warm"
NODES, REPLICAS = 12, 6


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def data(self) -> Mapping[str, object]:
        """Standard output as JSON."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass
class Lane:
    cluster: Cluster
    namespace: str
    emulator: Emulator

    async def prewarm(self, *arguments: str) -> Answer:
        """Run a command as a process of its own, while the emulated kubelets go on."""
        self.emulator.check()
        where = ("--kubeconfig", str(self.cluster.kubeconfig), "--context", self.cluster.context)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "prewarm",
            *arguments,
            *where,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(), err.decode())

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        return await asyncio.to_thread(
            self.cluster.kubectl, "--namespace", self.namespace, *arguments, manifest=manifest
        )

    def nodes_with(self, tag: str) -> set[str]:
        """Nodes that downloaded an image, by the kubelets' own account."""
        return {
            pull.node for pull in self.emulator.pulls if pull.image == f"{REPOSITORY}:{tag}" and pull.downloaded_bytes
        }


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    registries = Registries(convention=Catalog({REPOSITORY: 100_000_000}))
    plan = NodePlan(count=NODES, prefix="warm", labels=POOL, bandwidth=100e6)
    options = EmulatorOptions(nodes=plan, registries=registries, delete_nodes=True)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            Emulator(Connection.load(cluster.kubeconfig, cluster.context), options)
        )
        controller = ControllerProcess(cluster.kubeconfig, tmp_path / "prewarm.log", {"PREWARM_NAMESPACE": namespace})
        stack.push_async_callback(controller.stop)
        await controller.start()
        await controller.wait_leading()
        yield Lane(cluster, namespace, emulator)


def deployment() -> str:
    container = {
        "name": "app",
        "image": f"{REPOSITORY}:v1",
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
    }
    pod = {"nodeSelector": POOL, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return yaml.safe_dump(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": {
                "replicas": REPLICAS,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {"metadata": {"labels": {"app": "shop"}}, "spec": pod},
            },
        }
    )


async def test_a_pipeline_warms_a_rollout_before_it_deploys(lane: Lane) -> None:
    await lane.kubectl("apply", "-f", "-", manifest=deployment())
    await lane.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    name, image = f"deployment/{lane.namespace}/shop", f"{REPOSITORY}:v2"

    asked = await lane.prewarm("plan", "--workload", name, "--set-image", f"app={image}", "--output", "json")
    warmed = await lane.prewarm(
        "warm", name, "--set-image", f"app={image}", "--wait", "--timeout", "2m", "--output", "json"
    )
    shown = await lane.prewarm("status", name, "--output", "json")

    assert (asked.code, warmed.code, shown.code) == (0, 0, 0), (asked.err, warmed.err, shown.err)
    demands = asked.data()["demands"]
    assert isinstance(demands, list)
    assert demands[0]["images"] == [image]
    warm_nodes = warmed.data()["nodes"]
    assert isinstance(warm_nodes, list)
    assert lane.nodes_with("v2") == set(warm_nodes)
    caches = shown.data()["imageCaches"]
    assert isinstance(caches, list)
    assert [cache["state"] for cache in caches] == ["Warm"]

    await lane.kubectl("set", "image", "deployment/shop", f"app={image}")
    await lane.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    path = '{range .items[*]}{.spec.containers[0].image} {.spec.nodeName}{"\\n"}{end}'
    lines = (await lane.kubectl("get", "pods", "-l", "app=shop", "-o", f"jsonpath={path}")).splitlines()
    landed = [line.split()[1] for line in lines if line.startswith(f"{image} ")]
    cold = [node for node in landed if node not in warm_nodes]
    assert len(cold) <= len(landed) / 6, (landed, warm_nodes)

    again = await lane.prewarm("warm", name, "--wait")
    assert again.code == 0
    assert "needs nothing new" in again.out


async def test_plain_images_on_chosen_nodes(lane: Lane) -> None:
    label = next(f"{key}={value}" for key, value in POOL.items())
    options = ("-n", lane.namespace, "--node-selector", label, "--wait", "--timeout", "90s")
    warmed = await lane.prewarm("warm", "--image", f"{REPOSITORY}:base", *options)
    assert warmed.code == 0, warmed.err
    assert "warm after" in warmed.out
    assert len(lane.nodes_with("base")) == NODES
    node = min(lane.nodes_with("base"))
    known = await lane.prewarm("status", f"node/{node}", "--output", "json")
    images = known.data()["images"]
    assert isinstance(images, list)
    assert f"{REPOSITORY}:base" in {image["image"] for image in images}


async def test_what_cannot_be_warm_says_so_in_the_exit_code(lane: Lane) -> None:
    options = ("-n", lane.namespace, "--wait", "--timeout")
    absent = await lane.prewarm("warm", "--image", f"{REPOSITORY}:other", "--node", "no-such-node", *options, "60s")
    assert absent.code == 1, (absent.out, absent.err)
    assert "0 of 1 image and node pairs are there (0 %), 1 skipped" in absent.err
    assert len(absent.err.strip().splitlines()) == 1
    # Two seconds of pulling.
    late = await lane.prewarm("warm", "--image", f"{REPOSITORY}:late", "--node-selector", SELECTOR, *options, "1s")
    assert late.code == 3, (late.out, late.err)
    assert "not warm after 1 s" in late.err
    assert "pulling goes on" in late.err
    assert len(late.err.strip().splitlines()) == 1
    refused = await lane.prewarm("warm", "deployment/nowhere/shop", "--wait")
    assert refused.code == 2
    assert "not in the cluster" in refused.err
