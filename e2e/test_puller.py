"""Hand-written ImageCaches on a real control plane: restricted pod security, wrong images, a controller killed."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from e2e.cluster.selection import Cluster
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.lane import eventually
from e2e.manifests import install_definitions
from prewarm.api.names import LABEL_PULLER
from prewarm.cluster.connection import Connection

NODES = 20
POOL = {"prewarm.dev/test": "puller"}
APP = "registry.test/web:v1"
PROXY = "registry.test/proxy:v1"
WRONG = "registry.test/web:missing-v9"


@dataclass
class Lane:
    """A namespace under restricted pod security, emulated nodes, and a controller."""

    cluster: Cluster
    namespace: str
    emulator: Emulator
    controller: ControllerProcess

    async def told(self) -> list[tuple[str, str]]:
        """Type and reason of the Events of ImageCaches, once there is one: they are written beside the status."""

        async def found() -> bool:
            return bool(await self._events())

        await eventually(found)
        return await self._events()

    async def _events(self) -> list[tuple[str, str]]:
        selector = "involvedObject.kind=ImageCache"
        answer = await self.kubectl("get", "events", "--field-selector", selector, "-o", "json")
        return [(event["type"], event["reason"]) for event in json.loads(answer)["items"]]

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """kubectl in the namespace, while the emulated kubelets go on."""
        self.controller.check()
        self.emulator.check()
        return await asyncio.to_thread(
            self.cluster.kubectl, "--namespace", self.namespace, *arguments, manifest=manifest
        )

    async def apply(self, name: str, *images: str, **spec: object) -> None:
        """Write an ImageCache as a person would."""
        manifest = {
            "apiVersion": "prewarm.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": name},
            "spec": {"cacheSpec": [{"images": list(images), "nodeSelector": POOL}], **spec},
        }
        await self.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(manifest))

    async def wait(self, name: str, condition: str, seconds: int) -> None:
        """Return once the ImageCache has the condition."""
        kind = f"imagecaches.prewarm.dev/{name}"
        await self.kubectl("wait", kind, f"--for=condition={condition}", f"--timeout={seconds}s")

    async def status(self, name: str) -> Mapping[str, object]:
        """status of an ImageCache."""
        found = json.loads(await self.kubectl("get", f"imagecaches.prewarm.dev/{name}", "-o", "json"))
        status = found["status"]
        assert isinstance(status, dict)
        return status

    async def no_pod_left(self) -> None:
        """Return once no puller pod is left."""
        await self.kubectl("wait", "pods", "-l", f"{LABEL_PULLER}=true", "--for=delete", "--timeout=30s")
        assert not json.loads(await self.kubectl("get", "pods", "-o", "json"))["items"]

    def pulls(self, image: str) -> Counter[str]:
        """Pulls that succeeded, by node, as the kubelets count them."""
        return Counter(pull.node for pull in self.emulator.pulls if pull.image == image and not pull.error)


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    await asyncio.to_thread(
        cluster.kubectl, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", manifest=yaml.safe_dump(system))
    plan = NodePlan(count=NODES, prefix=namespace, labels=POOL, bandwidth=100e6)
    connection = Connection.load(cluster.kubeconfig, cluster.context)
    settings = {"PREWARM_LEASE_DURATION_SECONDS": "2"}
    controller = ControllerProcess(cluster.kubeconfig, tmp_path / "controller.log", settings)
    async with Emulator(connection, EmulatorOptions(nodes=plan, delete_nodes=True)) as emulator:
        try:
            await controller.start()
            yield Lane(cluster, namespace, emulator, controller)
        finally:
            await controller.stop()


@pytest.mark.timeout(180)
async def test_cache_becomes_ready_under_restricted_pod_security(lane: Lane) -> None:
    await lane.apply("base", APP, PROXY)
    await lane.wait("base", "Ready", 90)
    status = await lane.status("base")
    assert (status["desired"], status["succeeded"], status["failed"]) == (2 * NODES, 2 * NODES, 0)
    once = Counter(dict.fromkeys(lane.emulator.fleet.nodes, 1))
    assert lane.pulls(APP) == once
    assert lane.pulls(PROXY) == once
    await lane.no_pod_left()
    records = json.loads(await lane.kubectl("get", "nodeimages.prewarm.dev", "-o", "json"))["items"]
    known = {(record["metadata"]["name"], image["image"]) for record in records for image in record["status"]["images"]}
    assert {(node, image) for node in lane.emulator.fleet.nodes for image in (APP, PROXY)} <= known


@pytest.mark.timeout(180)
async def test_wrong_image_is_reported_in_the_kubelets_words(lane: Lane) -> None:
    await lane.apply("base", APP, WRONG)
    await lane.wait("base", "Degraded", 30)
    failures = (await lane.status("base"))["failures"]
    assert isinstance(failures, list)
    assert (failures[0]["image"], failures[0]["reason"]) == (WRONG, "NotFound")
    assert f"failed to resolve image: {WRONG}: not found" in failures[0]["message"]
    assert await lane.told() == [("Warning", "PullsFailed")]
    await lane.kubectl(
        "wait", "imagecaches.prewarm.dev/base", f"--for=jsonpath={{.status.succeeded}}={NODES}", "--timeout=60s"
    )
    await lane.kubectl("delete", "imagecaches.prewarm.dev/base")
    await lane.no_pod_left()


@pytest.mark.timeout(240)
async def test_killed_controller_repeats_no_pull_and_loses_none(lane: Lane) -> None:
    await lane.apply("base", APP, PROXY, parallelism=4)
    for _ in range(3):
        await asyncio.sleep(2.0)
        lane.controller.kill()
        await lane.controller.start()
    await lane.wait("base", "Ready", 120)
    once = Counter(dict.fromkeys(lane.emulator.fleet.nodes, 1))
    assert lane.pulls(APP) == once
    assert lane.pulls(PROXY) == once
    await lane.no_pod_left()
