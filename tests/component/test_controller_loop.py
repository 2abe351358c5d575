"""The loop and its lease under faults: who writes, what survives, what is tried again."""

import asyncio
import copy
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

import pytest

from prewarm.history.codec import decode
from prewarm.history.state import Measured
from prewarm.model.intents import CONFIG_MAPS, DEPLOYMENTS, IMAGE_CACHES, LEASES, NODE_IMAGES, NODES, PODS
from tests.support.controlling import NAMESPACE, Instance, image_cache, instance
from tests.support.fake_api_server import FakeApiServer, Hang, Refuse
from tests.support.manifests import Object, node, pod

TIMEOUT_SECONDS = 20.0
IMAGE = "registry.example/web:v1"


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as server:
        server.put(NODES, node("node-a"))
        yield server


async def ordered(server: FakeApiServer, images: int) -> None:
    """Return once so many puller pods were asked for."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await server.until(lambda: server.count("create", PODS) >= images)


def holder(server: FakeApiServer) -> object:
    lease = server.objects(LEASES)[NAMESPACE, "prewarm"]
    return lease["spec"]["holderIdentity"]


async def leading(running: Instance) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await running.lease.leading.wait()


async def test_the_leader_turns_a_cache_into_a_puller_pod(server: FakeApiServer) -> None:
    async with instance(server):
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
    (pod,) = server.objects(PODS).values()
    assert pod["spec"]["nodeName"] == "node-a"
    assert IMAGE in [container["image"] for container in pod["spec"]["containers"]]


async def test_an_instance_without_the_lease_writes_nothing(server: FakeApiServer) -> None:
    async with instance(server) as first:
        await leading(first)
        async with instance(server, "second") as second:
            server.put(IMAGE_CACHES, image_cache("base", IMAGE))
            await ordered(server, 1)
            assert not second.lease.leading.is_set()
        assert server.count("create", PODS) == 1
        assert holder(server) == "first"


async def test_an_instance_takes_over_what_came_while_it_stood_by(server: FakeApiServer) -> None:
    async with instance(server) as first, instance(server, "second"):
        await leading(first)
        server.fail_next("create", PODS, *[Refuse(500, "InternalError", "down")] * 2)
        await first.stop()
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: bool(server.objects(PODS)))
        assert holder(server) == "second"


async def test_a_leader_whose_records_lag_orders_nothing_before_it_has_caught_up(server: FakeApiServer) -> None:
    """What another pulled and tidied away is on the records alone; after an API server's restart they come late."""
    hang = Hang()
    async with instance(server) as running:
        await leading(running)
        server.fail_next("watch", NODE_IMAGES, hang)
        server.cut_watches()
        await server.until(lambda: server.count("watch", NODE_IMAGES) == 2)
        lease = copy.deepcopy(server.objects(LEASES)[NAMESPACE, "prewarm"])
        lease["spec"]["holderIdentity"] = "another"
        server.put(LEASES, lease)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: holder(server) == "first")
            server.put(IMAGE_CACHES, image_cache("base", IMAGE))
            renewed = server.count("update", LEASES)
            await server.until(lambda: server.count("update", LEASES) == renewed + 20)
        assert server.count("create", PODS) == 0
        hang.released.set()
        await ordered(server, 1)


async def test_stopping_stores_what_was_learnt_and_frees_the_lease(server: FakeApiServer) -> None:
    async with instance(server) as running:
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
        await running.stop()
    assert holder(server) == ""
    memory = server.objects(CONFIG_MAPS)[NAMESPACE, "prewarm-history"]
    assert set(memory["binaryData"]) == {"history", "ledger"}


def learnt_sizes(server: FakeApiServer) -> Mapping[str, Measured]:
    """By image, as the stored memory has them; none if there is none yet."""
    memory = server.objects(CONFIG_MAPS).get((NAMESPACE, "prewarm-history"))
    return {} if memory is None else decode(b64decode(memory["binaryData"]["history"])).image_sizes


async def test_sizes_that_nodes_list_are_learnt_before_the_first_plan_asks(server: FakeApiServer) -> None:
    listing = node("node-b")
    listing["status"]["images"] = [{"names": [IMAGE], "sizeBytes": 250_000_000}]
    server.put(NODES, listing)
    async with instance(server), asyncio.timeout(TIMEOUT_SECONDS):
        await server.until(lambda: IMAGE in learnt_sizes(server))
    assert learnt_sizes(server)[IMAGE].value == 250_000_000


async def test_a_rollout_that_waits_when_the_controller_starts_is_drawn_by_sizes_that_nodes_list(
    server: FakeApiServer,
) -> None:
    """Held pods are drawn to as many equal nodes as there are pods; with an image of unknown size nobody can tell."""
    for name in ("node-b", "node-c", "node-d", "node-e", "node-f"):
        server.put(NODES, node(name))
    listing = node("node-a")
    listing["status"]["images"] = [{"names": ["registry.example/quick:v1"], "sizeBytes": 1_000_000_000}]
    server.put(NODES, listing)
    held = announced("quick", replicas=2)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    held["metadata"]["annotations"] |= {"prewarm.dev/gate": "5m", "prewarm.dev/gate-held": since}
    server.put(DEPLOYMENTS, held)
    async with instance(server), asyncio.timeout(TIMEOUT_SECONDS):
        await server.until(lambda: len(server.objects(IMAGE_CACHES)) == 1)
        (cache,) = server.objects(IMAGE_CACHES).values()
    (images,) = cache["spec"]["cacheSpec"]
    assert len(images["nodeNames"]) == 2


async def test_stopping_stores_what_a_cut_off_write_did_not(server: FakeApiServer) -> None:
    server.fail_next("patch", CONFIG_MAPS, Hang())
    async with instance(server) as running:
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: server.count("patch", CONFIG_MAPS) == 1)
        await running.stop()
    assert (NAMESPACE, "prewarm-history") in server.objects(CONFIG_MAPS)


async def test_who_does_not_lead_reports_no_caches(server: FakeApiServer) -> None:
    def caches(running: Instance) -> float | None:
        return running.metrics.registry.get_sample_value("prewarm_imagecache_objects", {"origin": "written"})

    async with instance(server) as running:
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
        assert caches(running) == 1
        await running.stop()
        assert caches(running) == 0


async def test_memory_that_cannot_be_read_is_not_overwritten(server: FakeApiServer) -> None:
    server.fail_next("get", CONFIG_MAPS, *[Refuse(500, "InternalError", "down")] * 2)
    async with instance(server) as running:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: server.count("get", CONFIG_MAPS) == 2)
        assert server.count("patch", CONFIG_MAPS) == 0
        # Given back and taken again, this time with the memory at hand.
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
        assert running.lease.leading.is_set()


async def test_a_pod_that_is_refused_is_not_asked_for_again_at_once(server: FakeApiServer) -> None:
    server.fail_next("create", PODS, *[Refuse(403, "Forbidden", "exceeded quota: pods=3")] * 1)
    async with instance(server):
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(
                lambda: "exceeded quota" in str(server.objects(IMAGE_CACHES)["shop", "base"].get("status", ""))
            )
        assert server.count("create", PODS) == 1


async def test_nothing_is_asked_for_again_and_again_in_a_namespace_that_ends(server: FakeApiServer) -> None:
    server.ending.add("shop")
    async with instance(server) as running:
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(
                lambda: "being terminated" in str(server.objects(IMAGE_CACHES)["shop", "base"].get("status", ""))
            )
            elsewhere = image_cache("base", IMAGE)
            elsewhere["metadata"]["namespace"] = "other"
            server.put(IMAGE_CACHES, elsewhere)
            await server.until(lambda: len(server.objects(PODS)) == 1)
            server.put(NODES, node("node-b"))
            await server.until(lambda: len(server.objects(PODS)) == 2)
        errors = running.metrics.registry.get_sample_value("prewarm_write_errors_total", {"intent": "Create"})
    asked = [request.path for request in server.asked("create", PODS) if "/shop/" in request.path]
    assert len(asked) == 1
    assert errors == 0


async def test_nothing_is_pulled_before_it_is_stored_that_it_is_to_be_purged(server: FakeApiServer) -> None:
    """A deletion may come while no controller runs; then nothing else knows of the ImageCache."""
    server.fail_next("patch", CONFIG_MAPS, *[Refuse(500, "InternalError", "down")] * 3)
    cache = image_cache("base", IMAGE)
    cache["spec"]["deletionPolicy"] = "Purge"
    async with instance(server, purge=True):
        server.put(IMAGE_CACHES, cache)
        await ordered(server, 1)
        stored = server.objects(CONFIG_MAPS)[NAMESPACE, "prewarm-purge"]
    assert "base" in stored["data"]["caches"]


async def test_a_pod_that_the_server_lost_is_asked_for_again(server: FakeApiServer) -> None:
    server.fail_next("create", PODS, *[Refuse(500, "InternalError", "down")] * 2)
    async with instance(server) as running:
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: bool(server.objects(PODS)))
        errors = running.metrics.registry.get_sample_value("prewarm_write_errors_total", {"intent": "Create"})
        assert errors == 2


async def test_a_create_without_an_answer_keeps_nothing_else_waiting(server: FakeApiServer) -> None:
    server.fail_next("create", PODS, Hang())
    async with instance(server):
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
        server.put(NODES, node("node-b"))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: [pod["spec"]["nodeName"] for pod in server.objects(PODS).values()] == ["node-b"])
            await server.until(
                lambda: server.objects(IMAGE_CACHES)["shop", "base"].get("status", {}).get("active", 0) == 2
            )


async def test_memory_that_cannot_be_stored_is_tried_again_and_stops_nothing(server: FakeApiServer) -> None:
    server.fail_next("patch", CONFIG_MAPS, *[Refuse(403, "Forbidden", "no")] * 50)
    async with instance(server) as running:
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: server.count("patch", CONFIG_MAPS) >= 2)
        assert running.lease.leading.is_set()


async def test_an_image_cache_that_is_being_written_keeps_no_other_rollout_waiting(server: FakeApiServer) -> None:
    hang = Hang()
    async with instance(server) as running:
        await leading(running)
        server.fail_next("patch", IMAGE_CACHES, hang)
        server.put(DEPLOYMENTS, announced("slow"))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: server.count("patch", IMAGE_CACHES) == 1)
            server.put(DEPLOYMENTS, announced("quick"))
            await server.until(lambda: pulled_for(server) == {"quick"})
            hang.released.set()
            await server.until(lambda: pulled_for(server) == {"quick", "slow"})


async def test_an_image_cache_that_could_not_be_written_is_planned_again(server: FakeApiServer) -> None:
    async with instance(server) as running:
        await leading(running)
        server.fail_next("patch", IMAGE_CACHES, *[Refuse(500, "InternalError", "down")] * 2)
        server.put(DEPLOYMENTS, announced("quick"))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.until(lambda: pulled_for(server) == {"quick"})
        errors = running.metrics.registry.get_sample_value("prewarm_write_errors_total", {"intent": "Apply"})
    assert errors == 1


async def test_what_follows_from_long_plans_is_pulled_though_nothing_else_happens(server: FakeApiServer) -> None:
    """So many pods take long to place: these plans are made in a thread, one after the other."""
    async with instance(server) as running:
        await leading(running)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            # Then everything has been planned once.
            server.put(DEPLOYMENTS, announced("first"))
            await server.until(lambda: pulled_for(server) == {"first"})
            for name in ("slow", "slower"):
                server.put(DEPLOYMENTS, announced(name, replicas=100))
            server.put(DEPLOYMENTS, announced("quick"))
            await server.until(lambda: pulled_for(server) == {"first", "quick", "slow", "slower"})


def announced(name: str, replicas: int = 1) -> Object:
    """A paused Deployment that was never rolled out: its pods come, nobody knows when."""
    container = {"name": "app", "image": f"registry.example/{name}:v2"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "generation": 1,
            "annotations": {"prewarm.dev/enabled": "true"},
        },
        "spec": {
            "replicas": replicas,
            "paused": True,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }


def pulled_for(server: FakeApiServer) -> set[str]:
    """Deployments for which pods were asked for that pull."""
    asked = b"".join(request.body for request in server.asked("create", PODS))
    return {name for name in ("first", "quick", "slow", "slower") if f"registry.example/{name}:v2".encode() in asked}


async def test_a_node_that_comes_later_is_pulled_to_as_well(server: FakeApiServer) -> None:
    async with instance(server):
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
        server.put(NODES, node("node-b"))
        await ordered(server, 2)
    assert {pod["spec"]["nodeName"] for pod in server.objects(PODS).values()} == {"node-a", "node-b"}


async def test_pods_of_others_cause_no_writes(server: FakeApiServer) -> None:
    async with instance(server) as running:
        await leading(running)
        before = server.count("patch", IMAGE_CACHES) + server.count("create", PODS)
        for number in range(20):
            server.put(PODS, pod(f"other-{number}", node="node-a"))
        server.put(IMAGE_CACHES, image_cache("base", IMAGE))
        await ordered(server, 1)
    assert before == 0
    assert server.count("create", PODS) == 1
