"""A namespace with emulated nodes and controllers of its own: what most tests on the real control plane work in."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from prewarm.cluster.connection import Connection
from prewarm.simulation.registry import Registries

REPOSITORY = "registry.test/shop"
STARTS = "prewarm_container_starts_total"


@dataclass(frozen=True)
class LanePlan:
    """What a lane is made of.

    Attributes:
        nodes: number of emulated nodes.
        prefix: of the nodes' names, and value of their label, so that tests do not share nodes.
        image_bytes: size of every image of REPOSITORY.
        bandwidth: bytes a second of one node.
        varied: whether the nodes' sizes differ.
        seed: decides the sizes.
    """

    nodes: int = 16
    prefix: str = "lane"
    image_bytes: int = 200_000_000
    bandwidth: float = 100e6
    varied: bool = True
    seed: str = "1"

    @property
    def pool(self) -> dict[str, str]:
        """Label of the lane's nodes."""
        return {"prewarm.dev/test": self.prefix}

    @property
    def node_plan(self) -> NodePlan:
        """The lane's nodes."""
        return NodePlan(
            count=self.nodes,
            prefix=self.prefix,
            labels=self.pool,
            bandwidth=self.bandwidth,
            varied=self.varied,
            seed=self.seed,
        )


@dataclass
class Lane:
    """Its controllers keep their lease and memory in the namespace, too."""

    cluster: Cluster
    namespace: str
    plan: LanePlan
    emulator: Emulator
    directory: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def controller(self, name: str = "prewarm", *, leads: bool = True, **settings: str) -> ControllerProcess:
        """Start a controller that ends with the test; it leads, unless another one does."""
        environment = {
            "PREWARM_NAMESPACE": self.namespace,
            "PREWARM_PERSIST_SECONDS": "0.5",
            "PREWARM_LEASE_DURATION_SECONDS": "3",
            **settings,
        }
        controller = ControllerProcess(self.cluster.kubeconfig, self.directory / f"{name}.log", environment)
        self.stack.push_async_callback(controller.stop)
        await controller.start()
        if leads:
            await controller.wait_leading()
        return controller

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """Kubectl in the namespace, while the emulated kubelets go on."""
        self.emulator.check()
        return await asyncio.to_thread(
            self.cluster.kubectl, "--namespace", self.namespace, *arguments, manifest=manifest
        )

    async def apply(self, manifest: Mapping[str, object]) -> None:
        """Write an object as a person would."""
        await self.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(dict(manifest)))

    async def get(self, *what: str) -> Mapping[str, object]:
        """An object or list."""
        found = json.loads(await self.kubectl("get", *what, "-o", "json"))
        assert isinstance(found, dict)
        return found

    async def names(self, kind: str, *options: str) -> list[str]:
        """Names of the objects of a kind."""
        return (await self.kubectl("get", kind, *options, "-o", "name")).split()

    async def rolled_out(self, workload: str, seconds: int = 120) -> None:
        """Return once all pods are of the last template and ready."""
        await self.kubectl("rollout", "status", workload, f"--timeout={seconds}s")

    def downloads(self, tag: str) -> Counter[str]:
        """How often each node downloaded an image of REPOSITORY, by the kubelets' own account."""
        return Counter(
            pull.node
            for pull in self.emulator.pulls
            if pull.image == f"{REPOSITORY}:{tag}" and not pull.error and pull.downloaded_bytes
        )

    def cold_starts(self, tag: str) -> int:
        """Pods of workloads that pulled the image themselves, by the kubelets' own account."""
        image = f"{REPOSITORY}:{tag}"
        return sum(
            pull.image == image and not pull.error and pull.downloaded_bytes > 0 and "-pull-" not in pull.pod
            for pull in self.emulator.pulls
        )


@asynccontextmanager
async def running(cluster: Cluster, namespace: str, directory: Path, plan: LanePlan) -> AsyncIterator[Lane]:
    """A lane for the length of the block; its nodes and controllers are gone afterwards."""
    registries = Registries(convention=Catalog({REPOSITORY: plan.image_bytes}))
    options = EmulatorOptions(nodes=plan.node_plan, registries=registries, delete_nodes=True)
    async with (
        Emulator(Connection.load(cluster.kubeconfig, cluster.context), options) as emulator,
        AsyncExitStack() as stack,
    ):
        yield Lane(cluster, namespace, plan, emulator, directory, stack)


def pod_template(
    tag: str, plan: LanePlan, *, name: str, startup_seconds: float = 0.0, **spec: object
) -> dict[str, object]:
    """A pod template with one container that is ready some time after its start, kept to the lane's nodes."""
    container = {
        "name": "app",
        "image": f"{REPOSITORY}:{tag}",
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
    }
    return {
        "metadata": {
            "labels": {"app": name},
            "annotations": {"emulator.prewarm.dev/startup-seconds": str(startup_seconds)},
        },
        "spec": {
            "nodeSelector": plan.pool,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }


def local_volume(namespace: str, claim: str, node: str) -> dict[str, object]:
    """A local volume of one node, kept for one claim; its class is `none`."""
    host = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": "/data"},
            "storageClassName": "none",
            "claimRef": {"namespace": namespace, "name": claim},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
        },
    }


def claim_template(name: str) -> dict[str, object]:
    """An entry of volumeClaimTemplates for such volumes."""
    storage = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": storage}
    return {"metadata": {"name": name}, "spec": spec}


async def outcomes(controller: ControllerProcess, at_least: int, seconds: float = 60) -> dict[str, float]:
    """Container starts by outcome, once so many are judged."""
    async with asyncio.timeout(seconds):
        while True:
            controller.check()
            counted = {
                name.partition("{")[2].rstrip("}"): value
                for name, value in (await controller.metrics()).items()
                if name.startswith(f"{STARTS}{{")
            }
            if sum(counted.values()) >= at_least:
                return counted
            await asyncio.sleep(0.2)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Return once the cluster is in a state that no single watch tells of."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - asked of a server
            await asyncio.sleep(0.1)
