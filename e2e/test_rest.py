"""Warm ImageCaches cost no writes, however often the controller looks at them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.emulator.nodes import NodePlan, manifest
from e2e.manifests import install_definitions
from prewarm.controller.metrics import CYCLE_DURATION

NODES, CACHES, LOOKS = 20, 10, 10
IMAGES = [f"registry.test/base-{number}:v1" for number in range(CACHES)]
_SETTLING = 60
"""Looks within which everything has been written."""


class Watched:
    """Nodes that have all images, and a controller that looks at them when told."""

    def __init__(self, cluster: Cluster, namespace: str, controller: ControllerProcess) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._controller = controller
        self._touched = 0

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """Kubectl in the namespace."""
        self._controller.check()
        return await asyncio.to_thread(
            self._cluster.kubectl, "--namespace", self._namespace, *arguments, manifest=manifest
        )

    async def look(self) -> None:
        """Change a node in a way that means nothing, and wait until the controller has had a cycle since."""
        before = await self._cycles()
        self._touched += 1
        await self.kubectl("label", "--overwrite", "node", f"{self._namespace}-00", f"test/touched={self._touched}")
        async with asyncio.timeout(30):
            while await self._cycles() <= before:  # noqa: ASYNC110 - asked of a process
                await asyncio.sleep(0.05)

    async def _cycles(self) -> float:
        return (await self._controller.metrics()).get(f"{CYCLE_DURATION}_count", 0.0)

    async def versions(self) -> dict[str, str]:
        """Resource versions of all that the controller may write."""
        kinds = "imagecaches.prewarm.dev,pods,events,configmaps"
        found = json.loads(await self.kubectl("get", kinds, "-o", "json"))["items"]
        records = json.loads(await self.kubectl("get", "nodeimages.prewarm.dev", "-o", "json"))["items"]
        own = [record for record in records if record["metadata"]["name"].startswith(self._namespace)]
        return {f"{o['kind']} {o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in [*found, *own]}


@asynccontextmanager
async def watched(cluster: Cluster, namespace: str, directory: Path) -> AsyncIterator[Watched]:
    await asyncio.to_thread(install_definitions, cluster)
    pool = {"prewarm.dev/test": namespace}
    images = [{"names": [image], "sizeBytes": 50_000_000} for image in IMAGES]
    objects: list[object] = []
    for profile in NodePlan(count=NODES, prefix=namespace, labels=pool).profiles():
        node = manifest(profile)
        status = node["status"]
        assert isinstance(status, dict)
        objects.append({**node, "status": {**status, "images": images}})
    for number in range(CACHES):
        wanted = [IMAGES[number], IMAGES[(number + 1) % CACHES]]
        spec = {"cacheSpec": [{"images": wanted, "nodeSelector": pool}]}
        kind = {"apiVersion": "prewarm.dev/v1alpha1", "kind": "ImageCache"}
        objects.append({**kind, "metadata": {"name": f"base-{number}", "namespace": namespace}, "spec": spec})
    await asyncio.to_thread(cluster.kubectl, "create", "-f", "-", manifest=yaml.safe_dump_all(objects))
    settings = {"PREWARM_NAMESPACE": namespace, "PREWARM_PERSIST_SECONDS": "0.5"}
    controller = ControllerProcess(cluster.kubeconfig, directory / "prewarm.log", settings)
    try:
        await controller.start()
        await controller.wait_leading()
        yield Watched(cluster, namespace, controller)
    finally:
        await controller.stop()
        await asyncio.to_thread(
            cluster.kubectl, "delete", "nodes", "-l", f"prewarm.dev/test={namespace}", "--wait=false"
        )


@pytest.mark.timeout(180)
async def test_nothing_is_written_at_rest(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    async with watched(cluster, namespace, tmp_path) as found:
        for number in range(CACHES):
            await found.kubectl(
                "wait", f"imagecaches.prewarm.dev/base-{number}", "--for=condition=Ready", "--timeout=60s"
            )
        versions: dict[str, str] = {}
        for _ in range(_SETTLING):
            before, versions = versions, await found.versions()
            if before == versions:
                break
            await found.look()
        assert len([name for name in versions if name.startswith("NodeImage ")]) == NODES
        assert not [name for name in versions if name.startswith("Pod ")]
        for _ in range(LOOKS):
            await found.look()
        assert await found.versions() == versions
