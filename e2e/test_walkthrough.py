"""A published walk-through of kube-fledged, step by step with ours: the same manifest, its errors included.

`pytest e2e/test_walkthrough.py -rP` shows what was typed and answered; docs/moving-over.md quotes it.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.caching import KIND, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.lane import eventually
from e2e.manifests import PROJECT
from prewarm.model.images import parse_reference

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

MANIFEST = "tests/data/foreign/kube-fledged-walkthrough.yaml"
NAMESPACE, CACHE = "kube-fledged", "imagecache1"
HOST = "vms105.liruilongs.github.io"
BUSYBOX, FTP, JDK = (f"liruilong/{name}:latest" for name in ("my-busybox", "hikvision-sdk-config-ftp", "jdk1.8_191"))
SETTINGS = {"PREWARM_PURGE": "true", "PREWARM_PURGE_IMAGE": "registry.test/prewarm:v1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("walkthrough"), SETTINGS) as running:
        yield running


class Terminal:
    """Types kubectl and prewarm, and shows it with the answers."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """Kubectl in the walk-through's namespace."""
        where = ("--namespace", NAMESPACE)
        out = await self._shop.lane.kubectl(*arguments, *where, manifest=manifest)
        print(f"$ kubectl {' '.join((*arguments, *where))}\n{out}")
        return out

    async def refused(self, *arguments: str) -> str:
        """Kubectl that fails; gives what it says."""
        with pytest.raises(RuntimeError) as caught:
            await self.kubectl(*arguments)
        print(f"$ kubectl {' '.join(arguments)} --namespace {NAMESPACE}\n{caught.value}\n")
        return str(caught.value)

    async def prewarm(self, *arguments: str, cluster: bool = True) -> str:
        """A prewarm command that succeeds."""
        found = self._shop.lane.cluster
        where = ("--kubeconfig", str(found.kubeconfig), "--context", found.context) if cluster else ()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "prewarm", *arguments, *where), cwd=PROJECT, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        print(f"$ prewarm {' '.join(arguments)}\n{out.decode()}")
        return out.decode()

    async def edit(self, patch: object) -> str:
        """`kubectl edit`, as a JSON patch."""
        return await self.kubectl("patch", KIND, CACHE, "--type=json", "-p", json.dumps(patch))

    async def has_no_annotation(self) -> bool:
        """Whether what was typed as an annotation was acted on and is gone."""
        where = ("--namespace", NAMESPACE, "-o", "jsonpath={.metadata.annotations}")
        return await self._shop.lane.kubectl("get", KIND, CACHE, *where) in {"", "{}"}

    async def wait(self, *conditions: str) -> None:
        """kubectl wait."""
        for condition in conditions:
            await self.kubectl("wait", f"{KIND}/{CACHE}", f"--for={condition}", "--timeout=60s")


def images_on(shop: Shop, image: str) -> set[str]:
    """Nodes that have an image, as the runtimes list them."""
    fleet = shop.lane.emulator.fleet
    return {name for name in shop.nodes if fleet.kubelet(name).store.find(parse_reference(image)) is not None}


async def test_the_walk_through_works_step_by_step(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        (named,) = await shop.add_nodes(1, "vms105", {"kubernetes.io/hostname": HOST})
        everywhere = set(shop.nodes)
        await shop.add_namespace(NAMESPACE)
        type_ = Terminal(shop)

        # Create, and look.
        manifest = await type_.prewarm("convert", "-f", MANIFEST, cluster=False)
        await type_.kubectl("create", "-f", "-", manifest=manifest)
        await type_.wait("condition=Ready")
        assert (await type_.kubectl("get", KIND)).splitlines()[1].split()[:5] == [CACHE, "4", "0", "4", "0"]
        await type_.prewarm("status", f"{NAMESPACE}/{CACHE}")
        assert (images_on(shop, BUSYBOX), images_on(shop, FTP)) == (everywhere, {named})

        # Refresh: tags that may have moved are asked for again, and the annotation goes.
        before = shop.pulls(BUSYBOX)
        await type_.kubectl("annotate", KIND, CACHE, "prewarm.dev/refresh=")
        await type_.wait("jsonpath={.status.requestedAt}", "condition=Ready")
        await lane.pods.until(lambda: shop.pulls(BUSYBOX) == before + Counter(everywhere))
        await type_.wait("condition=Ready")
        await eventually(type_.has_no_annotation)

        # Add an image.
        await type_.edit([{"op": "add", "path": "/spec/cacheSpec/0/images/-", "value": JDK}])
        await type_.wait("jsonpath={.status.succeeded}=7", "condition=Ready")
        assert images_on(shop, JDK) == everywhere

        # Remove one: with Purge it leaves the nodes, as it does there.
        await type_.edit(
            [
                {"op": "add", "path": "/spec/deletionPolicy", "value": "Purge"},
                {"op": "remove", "path": "/spec/cacheSpec/0/images/0"},
            ]
        )
        await type_.wait("condition=Purged", "condition=Ready")
        assert (images_on(shop, BUSYBOX), images_on(shop, JDK)) == (set(), everywhere)

        # Empty the list: [""] gets a clear message, [] does it.
        clear = [{"op": "replace", "path": "/spec/cacheSpec/0/images", "value": [""]}]
        said = await type_.refused("patch", KIND, CACHE, "--type=json", "-p", json.dumps(clear))
        assert "an image is never empty; to ask for none, write images: []" in said
        await type_.edit([{"op": "replace", "path": "/spec/cacheSpec/0/images", "value": []}])
        await type_.wait("jsonpath={.status.desired}=1", "condition=Purged")
        assert images_on(shop, JDK) == set()

        # Take the whole list out: "Mismatch in no. of image lists" there.
        await type_.edit([{"op": "remove", "path": "/spec/cacheSpec/0"}])
        await type_.wait("condition=Ready")
        assert images_on(shop, FTP) == {named}

        # Purge, and delete.
        await type_.kubectl("annotate", KIND, CACHE, "prewarm.dev/purge=")
        await type_.wait("jsonpath={.status.purgedAt}", "condition=Purged")
        assert images_on(shop, FTP) == set()
        # A node's own list of images is some seconds late, so the counts are.
        await type_.wait("jsonpath={.status.skipped}=1")
        await type_.prewarm("status", f"{NAMESPACE}/{CACHE}")
        await type_.kubectl("delete", KIND, CACHE, "--timeout=10s")
        await lane.pods.until(lambda: not lane.pods.left(NAMESPACE))
        assert await type_.kubectl("get", "imagecaches.prewarm.dev,pods", "-o", "name") == ""


@pytest.mark.parametrize("path", sorted((PROJECT / "tests/data/foreign").glob("*.[yj]*")), ids=lambda path: path.name)
async def test_the_server_takes_what_is_converted(lane: Lane, path: Path) -> None:
    async with lane.shop() as shop:
        printed = await Terminal(shop).prewarm("convert", "-f", str(path), "-o", "json", cluster=False)
        made = json.loads(printed)
        for item in made["items"]:
            item["metadata"]["namespace"] = shop.namespace
        options = ("--dry-run=server", "--validate=strict", "-o", "name")
        taken = await lane.kubectl("apply", *options, "-f", "-", manifest=json.dumps(made))
        assert len(taken.split()) == len(made["items"])
