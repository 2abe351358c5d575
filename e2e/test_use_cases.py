"""The example manifests keep what they promise: applied as they are to a real control plane with emulated nodes."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
import yaml
from msgspec.structs import replace

from e2e.caching import KIND, LOGIN, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.manifests import PROJECT
from prewarm.simulation.registry import Behaviour, Registry

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(150)]

EXAMPLES = PROJECT / "examples"
REGISTRY, PRIVATE = "registry.example", "private.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("examples")) as running:
        yield running


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


async def prewarm(lane: Lane, *arguments: str) -> Answer:
    """Run a command as a process of its own, while the emulated kubelets go on."""
    where = ("--kubeconfig", str(lane.cluster.kubeconfig), "--context", lane.cluster.context)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "prewarm", *arguments, *where),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    lane.emulator.check()
    return Answer(process.returncode or 0, out.decode(), err.decode())


async def apply(shop: Shop, name: str) -> None:
    """kubectl apply an example as it is."""
    await shop.kubectl("apply", "-f", str(EXAMPLES / f"{name}.yaml"))


def declare(lane: Lane, registry: Registry) -> None:
    """Change how a registry answers from now on."""
    lane.emulator.feed(lambda: lane.emulator.fleet.registries.declare(registry))


def cold(shop: Shop, image: str) -> Counter[str]:
    """Downloads that a workload's own pod had to wait for, by node."""
    pulls = (pull for pull in shop.lane.emulator.pulls if pull.image == image and pull.namespace == shop.namespace)
    return Counter(pull.node for pull in pulls if pull.downloaded_bytes and "-pull-" not in pull.pod)


async def test_base_images_come_to_every_node_and_to_those_that_join(lane: Lane) -> None:
    async with lane.shop(nodes=3) as shop:
        await apply(shop, "pattern-base-images")
        await shop.wait("base-images", "Ready")
        (joined,) = await shop.add_nodes(1, "joined")
        await shop.wait("base-images", ".status.succeeded=8")
        for image in (f"{REGISTRY}/base/java:21", f"{REGISTRY}/base/python:3.14"):
            assert shop.pulls(image) == shop.once(*shop.nodes)
        header, row = (await lane.kubectl("get", "nodeimages.prewarm.dev", joined)).splitlines()
        assert header.split() == ["NAME", "IMAGES", "FAILURES", "AGE"]
        assert (row.split()[0], int(row.split()[1]) >= 2, row.split()[2]) == (joined, True, "0")


async def test_sidecars_are_pulled_once_and_no_more(lane: Lane) -> None:
    image = f"{REGISTRY}/mesh/proxy:1.27.1"
    async with lane.shop(nodes=3) as shop:
        first = list(shop.nodes)
        # As it is, but for the time until the object goes: a test does not wait for five minutes.
        example = (EXAMPLES / "pattern-sidecars-once.yaml").read_text(encoding="utf-8")
        example = example.replace("ttlSecondsAfterFinished: 300", "ttlSecondsAfterFinished: 8")
        await shop.kubectl("apply", "-f", "-", manifest=example)
        await shop.wait("sidecars", "Finished")
        assert shop.pulls(image) == shop.once(*first)
        await shop.add_nodes(1, "later")
        await shop.kubectl("wait", f"{KIND}/sidecars", "--for=delete", "--timeout=60s")
        assert shop.pulls(image) == shop.once(*first)


async def test_one_pool_has_its_images_and_the_others_have_none(lane: Lane) -> None:
    image = f"{REGISTRY}/serverless/runner:v7"
    async with lane.shop(nodes=2) as shop:
        pool = await shop.add_nodes(2, "pool", {"resource-pool": "serverless"})
        await apply(shop, "pattern-one-pool")
        await shop.wait("serverless-images", "Ready")
        assert shop.pulls(image) == shop.once(*pool)
        await shop.kubectl("label", "node", shop.nodes[0], "resource-pool=serverless")
        await shop.wait("serverless-images", ".status.succeeded=3")
        assert shop.pulls(image) == shop.once(*pool, shop.nodes[0])


async def test_rapid_scaling_waits_for_no_download(lane: Lane) -> None:
    image = f"{REGISTRY}/stream/processor:v3"
    async with lane.shop() as shop:
        nodes = await shop.add_nodes(4, "stream", {"pool": "stream"})
        manifests = list(yaml.safe_load_all((EXAMPLES / "use-case-rapid-scaling.yaml").read_text(encoding="utf-8")))
        await shop.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(manifests[0]))
        await shop.wait("stream-processor", "Ready")
        await apply(shop, "use-case-rapid-scaling")
        await shop.kubectl("rollout", "status", "deployment/stream-processor", "--timeout=60s")
        await shop.kubectl("scale", "deployment/stream-processor", "--replicas=12")
        await shop.kubectl("rollout", "status", "deployment/stream-processor", "--timeout=60s")
        assert shop.pulls(image) == shop.once(*nodes)
        assert not cold(shop, image)


async def test_a_function_starts_at_once_on_every_node(lane: Lane) -> None:
    image = f"{REGISTRY}/functions/python:3.14"
    async with lane.shop() as shop:
        nodes = await shop.add_nodes(2, "functions", {"pool": "functions"})
        await apply(shop, "use-case-quick-reaction")
        await shop.wait("function-runtimes", "Ready")
        for index, node in enumerate(nodes):
            # One that runs on: a function that had ended before kubectl looks would never be Ready again.
            spec = {"nodeName": node, "containers": [{"name": "f", "image": image}]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"function-{index}"}, "spec": spec}
            await shop.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(pod))
        await shop.kubectl("wait", "pod/function-0", "pod/function-1", "--for=condition=Ready", "--timeout=60s")
        assert not cold(shop, image)


async def test_edge_nodes_outlast_the_loss_of_the_registry(lane: Lane) -> None:
    """What is there stays, what is missing comes when the link returns, and nothing spins meanwhile."""
    there, missing = f"{REGISTRY}/edge/gateway:v5", f"{REGISTRY}/edge/inference:v2"
    example = yaml.safe_load((EXAMPLES / "use-case-edge.yaml").read_text(encoding="utf-8"))
    (entry,) = example["spec"]["cacheSpec"]
    async with lane.shop() as shop:
        nodes = await shop.add_nodes(2, "edge", {"node-role.example/edge": ""})
        await shop.cache("edge", {**entry, "images": [there]})
        await shop.wait("edge", "Ready")
        declare(lane, Registry(REGISTRY, behaviour=Behaviour.UNKNOWN_HOST))
        try:
            await apply(shop, "use-case-edge")
            await shop.wait("edge", "Degraded")
            await lane.pods.until(lambda: all(len(lane.pods.ordered(shop.namespace, missing, n)) >= 2 for n in nodes))
            status = await shop.status("edge")
            assert status["succeeded"] == len(nodes)
            assert shop.pulls(there) == shop.once(*nodes)
            tried = Counter(pod.spec.node_name for pod in lane.pods.ordered(shop.namespace, missing))
            # The first pause is 10 s at least, the next one twice as long.
            assert max(tried.values()) <= 3
        finally:
            declare(lane, Registry(REGISTRY))
        await shop.wait("edge", "Ready", 90)
        assert shop.pulls(missing) == shop.once(*nodes)
        assert shop.pulls(there) == shop.once(*nodes)
        assert not [removed for removed in lane.emulator.removed if removed.node in nodes]


async def test_a_private_registry_opens_to_the_namespaces_own_secret_alone(lane: Lane) -> None:
    declare(lane, replace(Registry(PRIVATE), accepts=frozenset({LOGIN})))
    user, _, password = LOGIN.partition(":")
    async with lane.shop() as shop:
        nodes = await shop.add_nodes(2, "finance", {"pool": "finance"})
        await apply(shop, "use-case-private-registry")
        await shop.wait("private-images", "Degraded")
        assert set(await shop.reasons("private-images")) == {"MissingSecret"}
        credentials = ("--docker-server", PRIVATE, "--docker-username", user, "--docker-password", password)
        await shop.kubectl("create", "secret", "docker-registry", "registry-credentials", *credentials)
        await shop.kubectl("annotate", f"{KIND}/private-images", "prewarm.dev/refresh=the-secret-is-there")
        await shop.wait("private-images", "Ready")
        assert shop.pulls(f"{PRIVATE}/finance/ledger:v12") == shop.once(*nodes)


async def test_an_upgrade_is_checked_beforehand(lane: Lane) -> None:
    async with lane.shop() as shop:
        await shop.add_nodes(2, "shop", {"pool": "shop"})
        await apply(shop, "use-case-check-before-upgrade")
        await shop.wait("shop-api-v2", "Ready")
        options = ("-n", shop.namespace, "--node-selector", "pool=shop", "--wait", "--timeout", "60s")
        good, wrong = await asyncio.gather(
            prewarm(lane, "warm", "--image", f"{REGISTRY}/shop/api:v3", *options),
            prewarm(lane, "warm", "--image", f"{REGISTRY}/shop/api:missing-v4", *options),
        )
        assert good.code == 0, good.err
        assert wrong.code == 1, wrong.err
        assert f"{REGISTRY}/shop/api:missing-v4: not found" in wrong.err
        assert len(wrong.err.strip().splitlines()) == 1
        shown = await prewarm(lane, "status", f"imagecache/{shop.namespace}/shop-api-v2", "--output", "json")
        assert json.loads(shown.out)["state"] == "Warm"
