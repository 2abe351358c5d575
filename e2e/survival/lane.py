"""A small cluster, two instances of the controller, and the verdict on what they did."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from msgspec import Struct, field

from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.processes import ProcessError
from e2e.cluster.selection import cluster_of
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.emulator.watching import Metadata, Watch
from e2e.emulator.writer import KubeletClient
from e2e.manifests import install_definitions
from e2e.survival.proxy import FaultProxy
from prewarm.api.names import ANNOTATION_IMAGES, LABEL_PULLER, TRUE
from prewarm.cluster.client import Limits
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError
from prewarm.model.intents import IMAGE_CACHES, NAMESPACES, PODS, Manifest
from prewarm.simulation.registry import Registries
from prewarm.simulation.specs import Timings

NAMESPACE = "survival"
NODES = 6
IMAGES = 3
"""Of each ImageCache."""
IMAGE_BYTES, BANDWIDTH = 10_000_000, 50e6
TIMINGS = Timings(mount=0.05, relist=0.1)
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 75.0
"""Until everything has to be right again after a fault; back-off after failed pulls is 10 s and more."""
OPTIONS = ControlPlaneOptions(
    node_lease_seconds=400, extra_flags={Component.KUBE_CONTROLLER_MANAGER: ["--node-monitor-grace-period=600s"]}
)
"""So that a control plane that stalls on purpose finds its nodes Ready afterwards."""


class _PodMeta(Struct):
    uid: str = ""
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _PodSpec(Struct, rename="camel"):
    node_name: str = ""


class _Pod(Struct):
    metadata: _PodMeta
    spec: _PodSpec = field(default_factory=_PodSpec)


class _CacheMeta(Struct):
    uid: str = ""
    name: str = ""


class _Status(Struct):
    desired: int = 0
    succeeded: int = 0
    failed: int = 0
    counts: dict[str, int] = {}


class _Cache(Struct):
    metadata: _CacheMeta
    status: _Status = field(default_factory=_Status)


class BrokenError(AssertionError):
    """The controller did not survive a fault; the message says what is wrong."""


class Pulls(Struct):
    """What happened for one seed, as API server and kubelets tell."""

    pods: Counter[tuple[str, str]]
    """Pods made, by node and image."""
    pulls: Counter[tuple[str, str]]
    """Pulls that succeeded, by node and image."""
    failures: int


class Lane:
    """Orders ImageCaches, plays faults, judges."""

    def __init__(self, plane: ControlPlane, client: KubeletClient, emulator: Emulator, proxy: FaultProxy) -> None:
        self.plane = plane
        self.client = client
        self.emulator = emulator
        self.proxy = proxy
        self.instances: list[ControllerProcess] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._pods: dict[str, _Pod] = {}
        self._made: Counter[tuple[str, str]] = Counter()
        self._caches: dict[str, _Cache] = {}
        self._moved = asyncio.Event()
        self._number = 0
        self.following: asyncio.Task[None] | None = None

    # Instances

    def instance(self) -> ControllerProcess:
        """A controller that reaches the API server through the proxy; not started."""
        self._number += 1
        log = self.plane.logs / f"prewarm-{self._number}.log"
        settings = {
            "PREWARM_LEASE_DURATION_SECONDS": str(LEASE_SECONDS),
            "PREWARM_IDENTITY": f"instance-{self._number}",
            "PREWARM_CLUSTER_PULLS": "4",
        }
        return ControllerProcess(self.proxy_config, log, settings)

    @property
    def proxy_config(self) -> Path:
        """Kubeconfig that leads through the proxy."""
        return self.proxy.kubeconfig(self.plane.directory / "proxy.kubeconfig")

    async def start(self, count: int = 2) -> None:
        """Have so many instances run."""
        await self.started()
        self.instances = [found for found in self.instances if not _ended(found)]
        fresh = [self.instance() for _ in range(count - len(self.instances))]
        self.instances += fresh
        await asyncio.gather(*(found.start() for found in fresh))

    def start_another(self) -> None:
        """Start an instance in the background."""
        found = self.instance()
        self.instances.append(found)
        self._starting.add(asyncio.create_task(found.start(), name="start an instance"))

    async def started(self) -> None:
        """Return once all instances that were started in the background are ready."""
        starting, self._starting = self._starting, set()
        await asyncio.gather(*starting)

    async def stop(self) -> None:
        """End all instances in order."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        instances, self.instances = self.instances, []
        await asyncio.gather(*(found.stop() for found in instances))

    async def leader(self) -> ControllerProcess:
        """The instance that holds the lease."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for found in self.instances:
                    if (await found.metrics()).get("prewarm_leader") == 1:
                        return found
                await asyncio.sleep(0.05)

    # What is there

    async def follow(self) -> None:
        """Keep up with pods and ImageCaches until cancelled."""
        pods = Watch(self.client, PODS, _Pod, seen=self._pod_seen, gone=self._gone)
        caches = Watch(self.client, IMAGE_CACHES, _Cache, seen=self._cache_seen, gone=self._gone)
        async with asyncio.TaskGroup() as group:
            group.create_task(pods.run(), name="follow pods")
            group.create_task(caches.run(), name="follow caches")

    def _pod_seen(self, pod: _Pod) -> None:
        if pod.metadata.labels.get(LABEL_PULLER) == TRUE:
            if pod.metadata.uid not in self._pods:
                for image in json.loads(pod.metadata.annotations[ANNOTATION_IMAGES]):
                    self._made[pod.spec.node_name, image] += 1
            self._pods[pod.metadata.uid] = pod
            self._wake()

    def _cache_seen(self, cache: _Cache) -> None:
        self._caches[cache.metadata.name] = cache
        self._wake()

    def _gone(self, meta: Metadata) -> None:
        self._pods.pop(meta.uid, None)
        if (known := self._caches.get(meta.name)) is not None and known.metadata.uid == meta.uid:
            del self._caches[meta.name]
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def until(self, condition: Callable[[], bool], words: Callable[[], str]) -> None:
        """Return once a condition on pods and caches holds.

        Raises:
            BrokenError: if it does not in time.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    await self._moved.wait()
        except TimeoutError:
            raise BrokenError(f"{words()}; instances that ended: {self.ended}") from None
        finally:
            self.emulator.check()
            self.plane.check()
            self.check()

    @property
    def ended(self) -> list[str]:
        """Logs of instances that nobody killed and that are gone."""
        return [found.log.name for found in self.instances if _ended(found)]

    def check(self) -> None:
        """Do nothing while pods and caches are followed.

        Raises:
            Exception: what ended that.
        """
        if self.following is not None and self.following.done():
            self.following.result()

    # Orders and verdicts

    async def order(self, name: str) -> list[str]:
        """Create an ImageCache of fresh images for all nodes."""
        images = [f"registry.test/{name}-{number}:v1" for number in range(IMAGES)]
        manifest: Manifest = {
            "apiVersion": IMAGE_CACHES.api_version,
            "kind": IMAGE_CACHES.kind,
            "metadata": {"name": name},
            "spec": {"cacheSpec": [{"images": list(images)}]},
        }
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await self.client.create(IMAGE_CACHES, NAMESPACE, manifest)
                    return images
                except ApiError as error:
                    if error.reason == "AlreadyExists":
                        return images
                    if not error.transient:
                        raise
                    await asyncio.sleep(0.1)

    async def until_warm(self, name: str, pairs: int) -> None:
        """Return once the ImageCache says that all succeeded and no puller pod is left.

        Raises:
            BrokenError: if that does not come.
        """

        def said() -> str:
            status = self._caches[name].status if name in self._caches else None
            pulled = sum(f"/{name}-" in pull.image and not pull.error for pull in self.emulator.pulls)
            return (
                f"{name}: after {PATIENCE_SECONDS:.0f} s: {status}; {pulled} pulls by the kubelets' count; "
                f"pods left: {self.pods_left()}; logs: {self.plane.logs}"
            )

        def warm() -> bool:
            cache = self._caches.get(name)
            return cache is not None and cache.status.desired == cache.status.succeeded == pairs

        await self.until(warm, said)
        await self.until(lambda: not self._pods, said)

    def pods_left(self) -> list[str]:
        """Names of puller pods."""
        return [f"{pod.metadata.name} on {pod.spec.node_name}" for pod in self._pods.values()]

    async def forget(self, name: str) -> None:
        """Delete an ImageCache."""
        await self.client.delete(IMAGE_CACHES, NAMESPACE, name)
        await self.until(lambda: name not in self._caches, lambda: f"{name} is still there")

    def pulls(self, images: Sequence[str]) -> Pulls:
        """What was done for these images."""
        wanted = set(images)
        own = [pull for pull in self.emulator.pulls if pull.image in wanted]
        return Pulls(
            Counter({key: count for key, count in self._made.items() if key[1] in wanted}),
            Counter((pull.node, pull.image) for pull in own if not pull.error),
            sum(bool(pull.error) for pull in own),
        )

    def judge(self, images: Sequence[str], more: Mapping[str, int] | None = None) -> None:
        """Compare the kubelets' counters with one pull and one pod for each pair.

        Args:
            images: of one ImageCache.
            more: by node, how many incarnations it had beyond the first while the cache was there.

        Raises:
            BrokenError: if anything was pulled, or a pod made, more or less often; or an instance ended.
        """
        if self.ended:
            raise BrokenError(f"instances ended that nobody killed: {self.ended}; logs: {self.plane.logs}")
        did = self.pulls(images)
        for node in self.emulator.fleet.nodes:
            most = 1 + (more or {}).get(node, 0)
            for image in images:
                pulled, made = did.pulls[node, image], did.pods[node, image]
                if not 1 <= pulled <= most:
                    raise BrokenError(f"{image} was pulled {pulled} times on {node}")
                if made > most:
                    raise BrokenError(f"{made} pods were made for {image} on {node}")
        if did.failures:
            raise BrokenError(f"{did.failures} pulls of {images} failed")


def _ended(instance: ControllerProcess) -> bool:
    try:
        instance.check()
    except ProcessError:
        return True
    return False


@asynccontextmanager
async def running_lane(seed: int) -> AsyncIterator[Lane]:
    """A control plane with everything, for the length of the block; no instance is started."""
    async with (
        ControlPlane.start(OPTIONS) as plane,
        KubeletClient(Connection.load(plane.kubeconfig), limits=Limits(request=60.0)) as client,
        FaultProxy(plane.server, plane.ssl_context()).serving() as proxy,
    ):
        proxy.faults.random = Random(seed)  # noqa: S311 - not cryptography
        for name in (NAMESPACE, SYSTEM_NAMESPACE):
            await client.create(NAMESPACES, "", {"metadata": {"name": name}})
        await asyncio.to_thread(install_definitions, cluster_of(plane))
        sizes = {"docker.io/library/busybox": 1_000_000}
        registries = Registries(convention=Catalog(sizes, default_size=IMAGE_BYTES))
        options = EmulatorOptions(nodes=nodes(), registries=registries)
        async with Emulator(Connection.load(plane.kubeconfig), options) as emulator:
            lane = Lane(plane, client, emulator, proxy)
            following = lane.following = asyncio.create_task(lane.follow(), name="follow")
            try:
                yield lane
            finally:
                await lane.stop()
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


def nodes() -> NodePlan:
    """The lane's nodes."""
    return NodePlan(count=NODES, bandwidth=BANDWIDTH, unpack_rate=1e12, timings=TIMINGS)
