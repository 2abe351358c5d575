"""A running controller and emulated nodes that tests of ImageCaches share, every puller pod noted."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path

import msgspec
import yaml
from msgspec import Struct
from msgspec.structs import replace

from e2e.cluster.selection import Cluster
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan, manifest
from e2e.emulator.watching import Metadata, Watch
from e2e.lane import eventually
from e2e.manifests import install_definitions
from prewarm.api.names import LABEL_PULLER
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.model.intents import PODS, Json
from prewarm.simulation.registry import Registries, Registry

APP, NEXT = "registry.test/shop:v1", "registry.test/shop:v2"
SIDECAR = "registry.test/sidecar:v1"
WRONG = "registry.test/shop:missing-v9"
SLOW = "registry.test/large:v1"
"""Takes ten seconds to pull."""
PRIVATE = "private.test/shop:v1"
LOGIN = "puller:secret"
"""What the private registry accepts."""
KIND = "imagecaches.prewarm.dev"
LABEL = "prewarm.dev/test"
"""Every node of a test has it, with the test's namespace as value."""
_BANDWIDTH = 100e6
_numbers = count(1)


class _Container(Struct):
    name: str
    image: str


class _Spec(Struct, rename="camel"):
    node_name: str = ""
    containers: tuple[_Container, ...] = ()


class _PodMetadata(Struct, rename="camel"):
    name: str
    namespace: str
    uid: str
    creation_timestamp: datetime
    labels: Mapping[str, str] = {}


class Condition(Struct, rename="camel"):
    """A condition of an ImageCache."""

    type: str
    status: str
    reason: str
    message: str
    observed_generation: int


class PullerPod(Struct):
    """What is noted of a puller pod."""

    metadata: _PodMetadata
    spec: _Spec

    @property
    def images(self) -> tuple[str, ...]:
        """Images that it is to pull."""
        return tuple(c.image for c in self.spec.containers if c.name.startswith("pull-"))


class PullerPods:
    """Every puller pod that was ever there, in order of first sight."""

    def __init__(self, client: Client) -> None:
        self._seen: dict[str, PullerPod] = {}
        self._present: set[str] = set()
        self._moved = asyncio.Event()
        self._watch = Watch(client, PODS, PullerPod, seen=self._see, gone=self._lose)
        self._task = asyncio.create_task(self._watch.run(), name="puller pods")

    async def stop(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def ordered(self, namespace: str, image: str = "", node: str = "") -> list[PullerPod]:
        """Pods of a namespace; of one image, on one node, if they are given."""
        return [
            pod
            for pod in self._seen.values()
            if pod.metadata.namespace == namespace
            and (not image or image in pod.images)
            and (not node or node == pod.spec.node_name)
        ]

    def left(self, namespace: str, image: str = "", node: str = "") -> list[PullerPod]:
        """The same, of those that are still there."""
        return [pod for pod in self.ordered(namespace, image, node) if pod.metadata.uid in self._present]

    async def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Return once a condition on the pods holds.

        Raises:
            TimeoutError: it did not in time.
        """
        async with asyncio.timeout(seconds):
            while not condition():
                if self._task.done():
                    self._task.result()
                await self._moved.wait()

    def _see(self, pod: PullerPod) -> None:
        if LABEL_PULLER in pod.metadata.labels:
            self._seen[pod.metadata.uid] = pod
            self._present.add(pod.metadata.uid)
            self._move()

    def _lose(self, meta: Metadata) -> None:
        self._present.discard(meta.uid)
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


@dataclass
class Lane:
    """What the tests of a module share; namespaces and nodes are each test's own."""

    cluster: Cluster
    emulator: Emulator
    controller: ControllerProcess
    pods: PullerPods

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """kubectl, while the emulated kubelets go on."""
        self.emulator.check()
        return await asyncio.to_thread(self.cluster.kubectl, *arguments, manifest=manifest)

    @asynccontextmanager
    async def shop(self, nodes: int = 0) -> AsyncIterator["Shop"]:
        """A namespace and so many nodes of a test's own, removed afterwards."""
        shop = Shop(self, f"shop-{next(_numbers)}-{self.controller.port}")
        await shop.add_namespace(shop.namespace)
        try:
            if nodes:
                await shop.add_nodes(nodes)
            yield shop
        finally:
            await shop.clear()


@dataclass
class Shop:
    """One test's namespaces and nodes."""

    lane: Lane
    namespace: str
    nodes: list[str] = field(default_factory=list)
    _namespaces: list[str] = field(default_factory=list)

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """Kubectl in the namespace."""
        return await self.lane.kubectl("--namespace", self.namespace, *arguments, manifest=manifest)

    async def add_namespace(self, name: str) -> None:
        """Create a namespace with its default service account."""
        self._namespaces.append(name)
        await self.lane.kubectl("create", "namespace", name)
        await self.lane.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=30s")

    def _plan(
        self, count: int, prefix: str, labels: Mapping[str, str] | None, bandwidth: float = _BANDWIDTH
    ) -> NodePlan:
        return NodePlan(
            count=count,
            prefix=f"{self.namespace}-{prefix}",
            varied=False,
            labels={LABEL: self.namespace, **(labels or {})},
            bandwidth=bandwidth,
        )

    async def add_nodes(
        self,
        count: int,
        prefix: str = "node",
        labels: Mapping[str, str] | None = None,
        bandwidth: float = _BANDWIDTH,
    ) -> list[str]:
        """Nodes with emulated kubelets, of so many bytes a second; KWOK makes them Ready."""
        plan = self._plan(count, prefix, labels, bandwidth)
        names = [profile.name for profile in plan.profiles()]
        self.nodes.extend(name for name in names if name not in self.nodes)
        await self.lane.emulator.add_nodes(plan)
        return names

    async def add_silent_node(self, prefix: str = "silent", **status: object) -> str:
        """A node that KWOK makes Ready and on which no kubelet looks at a pod; fields of its status may be given."""
        (profile,) = self._plan(1, prefix, None).profiles()
        found: dict[str, object] = dict(manifest(profile))
        usual = found["status"]
        assert isinstance(usual, Mapping)
        found["status"] = {**usual, **status}
        self.nodes.append(profile.name)
        await self.lane.kubectl("create", "-f", "-", manifest=json.dumps(found))
        await self.lane.kubectl("wait", f"node/{profile.name}", "--for=condition=Ready", "--timeout=30s")
        return profile.name

    async def remove_node(self, name: str) -> None:
        """Delete a node, with its kubelet if it has one."""
        self.nodes.remove(name)
        if name in self.lane.emulator.fleet.nodes:
            await self.lane.emulator.delete_node(name)
        else:
            await self.lane.kubectl("delete", "node", name, "--wait=false")

    async def clear(self) -> None:
        """Delete everything."""
        now = ("--all", "--force", "--grace-period=0", "--wait=false")
        for name in self._namespaces:
            await self.lane.kubectl("delete", f"{KIND},pods", *now, "--namespace", name)
        for name in list(self.nodes):
            await self.remove_node(name)
        await self.lane.kubectl("delete", "namespace", *self._namespaces, "--wait=false")

    def entry(self, *images: str, **chosen: object) -> dict[str, object]:
        """An entry of cacheSpec for the test's own nodes."""
        selector = chosen.pop("nodeSelector", {})
        assert isinstance(selector, Mapping)
        return {"images": list(images), "nodeSelector": {LABEL: self.namespace, **selector}, **chosen}

    async def cache(self, name: str, *entries: Mapping[str, object], namespace: str = "", **spec: object) -> None:
        """Write an ImageCache as a person would."""
        found = {
            "apiVersion": "prewarm.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": name, "namespace": namespace or self.namespace},
            "spec": {"cacheSpec": list(entries), **spec},
        }
        await self.lane.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(found))

    async def wait(self, name: str, condition: str, seconds: int = 60, namespace: str = "") -> None:
        """`kubectl wait` for a condition (`Ready`, `Ready=False`) or for the value of a field (`.status.failed=3`)."""
        asked = (
            f"jsonpath={{{condition.replace('=', '}=', 1)}" if condition.startswith(".") else f"condition={condition}"
        )
        where = ("--namespace", namespace or self.namespace)
        await self.lane.kubectl("wait", f"{KIND}/{name}", f"--for={asked}", f"--timeout={seconds}s", *where)

    async def wait_reason(self, name: str, reason: str, seconds: int = 30) -> None:
        """Return once the condition Ready has this reason."""
        path = '{.status.conditions[?(@.type=="Ready")].reason}'
        await self.kubectl("wait", f"{KIND}/{name}", f"--for=jsonpath={path}={reason}", f"--timeout={seconds}s")

    async def status(self, name: str, namespace: str = "") -> dict[str, Json]:
        """Status of an ImageCache."""
        where = ("--namespace", namespace or self.namespace)
        found = json.loads(await self.lane.kubectl("get", f"{KIND}/{name}", "-o", "json", *where))
        status = found["status"]
        assert isinstance(status, dict)
        return status

    async def conditions(self, name: str) -> dict[str, Condition]:
        """Conditions by type."""
        found = msgspec.convert((await self.status(name))["conditions"], list[Condition])
        return {condition.type: condition for condition in found}

    async def reasons(self, name: str) -> dict[str, int]:
        """Pairs that are not there, by reason."""
        found = (await self.status(name)).get("reasons", [])
        assert isinstance(found, list)
        return {entry["reason"]: entry["count"] for entry in found}

    async def told(self, name: str, last: str) -> list[tuple[str, str]]:
        """Type and reason of the Events about an ImageCache, once one has this reason: they come beside the status."""

        async def found() -> bool:
            return any(reason == last for _, reason in await self._events(name))

        await eventually(found)
        return await self._events(name)

    async def _events(self, name: str) -> list[tuple[str, str]]:
        selector = f"involvedObject.kind=ImageCache,involvedObject.name={name}"
        found = await self.kubectl("get", "events", "--field-selector", selector, "-o", "json")
        return [(event["type"], event["reason"]) for event in json.loads(found)["items"]]

    def pulls(self, image: str) -> Counter[str]:
        """Pulls that succeeded on the test's nodes, as the kubelets count them."""
        done = (pull for pull in self.lane.emulator.pulls if pull.image == image and not pull.error)
        return Counter(pull.node for pull in done if pull.node.startswith(f"{self.namespace}-"))

    def once(self, *nodes: str) -> Counter[str]:
        """One pull on each of these nodes."""
        return Counter(dict.fromkeys(nodes, 1))


@asynccontextmanager
async def running_lane(
    cluster: Cluster,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    *,
    crowd: bool = False,
    kubeconfig: Path | None = None,
) -> AsyncIterator[Lane]:
    """A controller, with further settings if given, and an emulator on a cluster that has our definitions.

    Args:
        cluster: where.
        folder: for logs.
        settings: of the controller.
        crowd: whether there will be a thousand nodes, on a cluster of the lane's own: kubelets write no Events, and of
            a pod's status only what tells of its pulls; nodes are left to the cluster's end.
        kubeconfig: of the controller, if it is not to be the administrator.
    """
    await asyncio.to_thread(install_definitions, cluster)
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", manifest=yaml.safe_dump(system))
    registries = Registries(convention=Catalog({"registry.test/large": 1_000_000_000}))
    registries.declare(replace(Registry(PRIVATE.partition("/")[0]), accepts=frozenset({LOGIN})))
    connection = Connection.load(cluster.kubeconfig, cluster.context)
    options = EmulatorOptions(
        nodes=NodePlan(count=0),
        registries=registries,
        delete_nodes=not crowd,
        events=not crowd,
        every_status=not crowd,
    )
    environment = {"PREWARM_LEASE_DURATION_SECONDS": "2", **(settings or {})}
    controller = ControllerProcess(kubeconfig or cluster.kubeconfig, folder / "controller.log", environment)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(connection, options))
        client = await stack.enter_async_context(Client(connection))
        pods = PullerPods(client)
        stack.push_async_callback(pods.stop)
        stack.push_async_callback(controller.stop)
        await controller.start()
        yield Lane(cluster, emulator, controller, pods)
