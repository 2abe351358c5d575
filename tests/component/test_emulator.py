"""The emulator's driver against an API server that fails on purpose; the fake one keeps a patch's lists as sent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from e2e.emulator import Catalog, Emulator, EmulatorOptions, NodePlan
from e2e.emulator.driver import SECRETS
from prewarm.model.intents import EVENTS, NODES, PODS
from prewarm.simulation.registry import Registries
from prewarm.simulation.specs import Timings
from tests.support.fake_api_server import Cut, FakeApiServer, Refuse

IMAGE = "registry.example/app:v1"
QUICK = Timings(
    mount=0, sandbox=0.01, relist=0.05, tick=0.05, retry_min=0.2, retry_max=0.3, image_list=0.1, node_status=0.1
)


@asynccontextmanager
async def emulator(server: FakeApiServer, *, registries: Registries | None = None) -> AsyncIterator[Emulator]:
    plan = NodePlan(count=2, bandwidth=1e9, timings=QUICK)
    content = registries or Registries(convention=Catalog(default_size=1_000_000))
    async with Emulator(server.connection(), EmulatorOptions(nodes=plan, registries=content)) as running:
        yield running
        running.check()


def pod(name: str, image: str = IMAGE, **metadata: object) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "generation": 1, **metadata},
        "spec": {"nodeName": "node-0", "restartPolicy": "Never", "containers": [{"name": "app", "image": image}]},
        "status": {"phase": "Pending"},
    }


def phase(server: FakeApiServer, name: str) -> Callable[[], bool]:
    return lambda: server.objects(PODS)["default", name]["status"]["phase"] == "Succeeded"


def reasons(server: FakeApiServer, name: str) -> list[str]:
    events: list[Mapping[str, Any]] = [
        event for event in server.objects(EVENTS).values() if event["involvedObject"]["name"] == name
    ]
    return [str(event["reason"]) for event in events]


async def test_a_busy_server_is_asked_again_and_nothing_is_lost(server: FakeApiServer) -> None:
    busy = Refuse(429, "TooManyRequests", headers={"Retry-After": "0"})
    server.fail_next("create", NODES, busy)
    server.fail_next("create", EVENTS, busy, Refuse(500, "InternalError"), busy)
    server.fail_next("patch", PODS, busy, busy, Refuse(503, "ServiceUnavailable"))
    async with emulator(server):
        server.put(PODS, pod("one"))
        await server.until(phase(server, "one"))
        await server.until(lambda: reasons(server, "one") == ["Pulling", "Pulled", "Created", "Started"])
        assert {name for _, name in server.objects(NODES)} == {"node-0", "node-1"}


async def test_pods_are_seen_after_a_cut_and_an_expired_watch(server: FakeApiServer) -> None:
    async with emulator(server) as running:
        await server.until(lambda: server.watching(PODS))
        server.inject(PODS, Cut(b'{"type": "ADD'))
        server.forget(PODS)
        server.put(PODS, pod("missed"), silent=True)
        await server.until(phase(server, "missed"))
        server.remove(PODS, "default", "missed", silent=True)
        server.forget(PODS)
        server.inject(PODS, Cut())
        await server.until(lambda: server.count("list", PODS) >= 3)
        # Whoever lists has then been told: the next pod is seen after the one that went.
        server.put(PODS, pod("next"))
        await server.until(phase(server, "next"))
        assert running.fleet.kubelet("node-0").pods == 1


async def test_a_deleted_pod_is_removed_for_good_only_if_it_is_the_same(server: FakeApiServer) -> None:
    async with emulator(server):
        stored = server.put(PODS, pod("leaving"))
        await server.until(lambda: "Pulling" in reasons(server, "leaving"))
        leaving = pod("leaving", uid=stored["metadata"]["uid"], deletionTimestamp="2026-01-01T00:00:00Z")
        leaving["metadata"] |= {"deletionGracePeriodSeconds": 1, "generation": 2}
        server.put(PODS, leaving)
        await server.until(lambda: ("default", "leaving") not in server.objects(PODS))
        (request,) = server.asked("delete", PODS)
        assert stored["metadata"]["uid"].encode() in request.body
        assert b'"gracePeriodSeconds":0' in request.body


async def test_a_pod_that_cannot_be_read_leaves_the_others_alone(server: FakeApiServer) -> None:
    async with emulator(server):
        server.put(PODS, pod("odd", annotations={"emulator.prewarm.dev/run-seconds": "soon"}))
        server.put(PODS, pod("even"))
        await server.until(phase(server, "even"))
        assert reasons(server, "odd") == []


async def test_what_cannot_be_watched_ends_the_emulator(server: FakeApiServer) -> None:
    server.missing.add(SECRETS.plural)
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        async with emulator(server):
            pass


async def test_nodes_report_images_and_taken_over_nodes_keep_theirs(server: FakeApiServer) -> None:
    async with emulator(server):
        server.put(PODS, pod("one"))
        await server.until(lambda: bool(server.objects(NODES)["", "node-0"]["status"].get("images")))
    server.remove(PODS, "default", "one")
    async with emulator(server) as again:
        server.put(PODS, pod("two"))
        await server.until(phase(server, "two"))
        assert not again.pulls


async def test_a_node_s_taints_count_and_its_deletion_ends_its_kubelet(server: FakeApiServer) -> None:
    async with emulator(server) as running:
        node = server.objects(NODES)["", "node-0"]
        node["spec"]["taints"] = [{"key": "dedicated", "effect": "NoExecute"}]
        server.put(NODES, node)
        async with asyncio.timeout(20):
            await running.until(lambda: bool(running.fleet.kubelet("node-0").profile.taints))
        server.put(PODS, pod("one"))
        await server.until(lambda: server.objects(PODS)["default", "one"]["status"]["phase"] == "Failed")
        assert server.objects(PODS)["default", "one"]["status"]["reason"] == "TaintToleration"

        server.remove(NODES, "", "node-0")
        async with asyncio.timeout(20):
            await running.until(lambda: "node-0" not in running.fleet.nodes)
