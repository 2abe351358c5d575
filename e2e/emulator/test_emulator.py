"""Emulated nodes on a real control plane: what kubectl shows is what real kubelets would have written."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

import pytest

from e2e.cluster.selection import Cluster
from e2e.emulator import Catalog, Emulator, EmulatorOptions, NodePlan
from prewarm.cluster.connection import Connection
from prewarm.simulation.registry import Registries, Registry, RemoteImage, synthetic_image
from prewarm.simulation.specs import Timings

APP = "registry.example/team/web"
SIZE = 20_000_000
WAIT = 60.0
_prefixes = (f"emulated-{number}" for number in count(1))

Emulators = Callable[..., AbstractAsyncContextManager[Emulator]]


class Kubectl:
    """kubectl in a thread, so that the emulator in this loop goes on."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self.namespace = cluster, namespace

    async def __call__(self, *arguments: str, manifest: str | None = None) -> str:
        in_namespace = (*arguments, "--namespace", self.namespace)
        return await asyncio.to_thread(self._cluster.kubectl, *in_namespace, manifest=manifest)

    async def apply(self, *manifests: Mapping[str, object]) -> None:
        await self("apply", "--filename", "-", manifest="\n---\n".join(json.dumps(m) for m in manifests))

    async def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await self("get", kind, "--output", "json", *arguments))["items"]
        return found

    async def events(self, pod: str) -> list[dict[str, Any]]:
        about = await self.items("events", "--field-selector", f"involvedObject.name={pod},source=kubelet")
        return sorted(about, key=lambda event: int(event["metadata"]["resourceVersion"]))

    async def until_events(self, pod: str, *reasons: str) -> list[dict[str, Any]]:
        """Events of a pod, once each of the reasons was written."""
        for reason in reasons:
            selector = f"involvedObject.name={pod},source=kubelet,reason={reason}"
            await self("wait", "events", "--field-selector", selector, "--for=create", f"--timeout={WAIT:g}s")
        return await self.events(pod)


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    return Kubectl(cluster, namespace)


@pytest.fixture
def prefix() -> str:
    return next(_prefixes)


@pytest.fixture
def emulator(cluster: Cluster, prefix: str) -> Emulators:
    @asynccontextmanager
    async def start(
        count: int = 3, registries: Registries | None = None, *, delete_nodes: bool = True
    ) -> AsyncIterator[Emulator]:
        plan = NodePlan(
            count=count,
            prefix=prefix,
            bandwidth=20e6,
            labels={"emulated": prefix},
            timings=Timings(image_list=1.0, node_status=0.5),
        )
        content = registries or Registries(convention=Catalog({APP: SIZE}))
        connection = Connection.load(cluster.kubeconfig, cluster.context)
        options = EmulatorOptions(nodes=plan, registries=content, delete_nodes=delete_nodes)
        async with Emulator(connection, options) as running:
            yield running
            running.check()

    return start


def deployment(prefix: str, replicas: int, image: str, **annotations: str) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": annotations},
                "spec": {
                    "nodeSelector": {"emulated": prefix},
                    "containers": [{"name": "web", "image": image, "resources": {"requests": {"cpu": "100m"}}}],
                },
            },
        },
    }


def pod(name: str, node: str, image: str, **spec: object) -> dict[str, object]:
    container = {"name": "pull", "image": image, "resources": spec.pop("resources", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
            **spec,
        },
    }


async def test_a_deployment_on_ten_nodes_becomes_ready(emulator: Emulators, kubectl: Kubectl, prefix: str) -> None:
    async with emulator(10) as running:
        await kubectl.apply(deployment(prefix, 10, f"{APP}:v1"))
        await kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        pods = await kubectl.items("pods")

        downloads = [pull for pull in running.pulls if pull.downloaded_bytes]
        assert sorted(pull.node for pull in downloads) == sorted({p["spec"]["nodeName"] for p in pods})
        assert all(pull.downloaded_bytes == SIZE + 4096 and not pull.error for pull in downloads)
        for p in pods:
            (status,) = p["status"]["containerStatuses"]
            assert status["imageID"].startswith(f"{APP}@sha256:")
            assert status["ready"]
            assert status["started"]
            assert {c["type"]: c["status"] for c in p["status"]["conditions"]} == {
                "PodReadyToStartContainers": "True",
                "Initialized": "True",
                "Ready": "True",
                "ContainersReady": "True",
                "PodScheduled": "True",
            }
            assert p["status"]["podIP"]


async def test_events_are_written_as_the_kubelet_writes_them(
    emulator: Emulators, kubectl: Kubectl, prefix: str
) -> None:
    async with emulator(1):
        node = f"{prefix}-0"
        await kubectl.apply(pod("one", node, f"{APP}:v1"))
        await kubectl("wait", "pod/one", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        events = await kubectl.until_events("one", "Started")

        assert [event["reason"] for event in events] == ["Pulling", "Pulled", "Created", "Started"]
        assert events[0]["message"] == f'Pulling image "{APP}:v1"'
        assert events[1]["message"].startswith(f'Successfully pulled image "{APP}:v1" in 1')
        assert events[1]["message"].endswith(f"Image size: {SIZE + 4096} bytes.")
        for event in events:
            assert event["involvedObject"]["fieldPath"] == "spec.containers{pull}"
            assert event["source"] == {"component": "kubelet", "host": node}
            assert event["reportingComponent"] == "kubelet"
            assert (event["type"], event["count"]) == ("Normal", 1)


async def test_a_missing_tag_is_retried_until_it_is_pushed(emulator: Emulators, kubectl: Kubectl, prefix: str) -> None:
    registries = Registries()
    async with emulator(1, registries) as running:
        await kubectl.apply(pod("late", f"{prefix}-0", f"{APP}:v2"))
        waiting = "{.status.containerStatuses[0].state.waiting.reason}"
        await kubectl("wait", "pod/late", f"--for=jsonpath={waiting}=ErrImagePull", "--timeout=60s")
        (found,) = [event for event in await kubectl.until_events("late", "BackOff") if event["reason"] == "BackOff"]
        assert found["message"] == f'Back-off pulling image "{APP}:v2"'

        image: RemoteImage = synthetic_image(f"{APP}:v2", [1_000_000])
        running.feed(lambda: registries.push(f"{APP}:v2", image))
        await kubectl("wait", "pod/late", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")

        failures = [e for e in await kubectl.events("late") if e["message"].startswith("Failed to pull image")]
        assert [event["count"] for event in failures] == [len([pull for pull in running.pulls if pull.error])]
        assert failures[0]["message"].endswith(f"failed to resolve image: {APP}:v2: not found")


async def test_node_status_lists_what_was_pulled(emulator: Emulators, kubectl: Kubectl, prefix: str) -> None:
    async with emulator(1):
        node = f"{prefix}-0"
        await kubectl.apply(pod("one", node, f"{APP}:v1"))
        await kubectl("wait", f"node/{node}", "--for=jsonpath={.status.images[0].names}", "--timeout=60s")
        (image,) = json.loads(await kubectl("get", "node", node, "--output", "json"))["status"]["images"]

        assert image["sizeBytes"] == SIZE + 4096
        assert image["names"][0].startswith(f"{APP}@sha256:")
        assert image["names"][1] == f"{APP}:v1"


async def test_a_pod_that_does_not_fit_is_rejected(emulator: Emulators, kubectl: Kubectl, prefix: str) -> None:
    async with emulator(1) as running:
        large = {"requests": {"cpu": "500"}}
        await kubectl.apply(pod("large", f"{prefix}-0", f"{APP}:v1", resources=large))
        await kubectl("wait", "pod/large", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
        (p,) = await kubectl.items("pods")

        assert p["status"]["reason"] == "OutOfcpu"
        assert not running.pulls


async def test_credentials_come_from_the_pod_s_pull_secrets(emulator: Emulators, kubectl: Kubectl, prefix: str) -> None:
    registries = Registries([Registry("registry.example", accepts=frozenset({"team:word"}))], Catalog({APP: SIZE}))
    async with emulator(1, registries) as running:
        node = f"{prefix}-0"
        await kubectl.apply(pod("without", node, f"{APP}:v1"))
        await kubectl.until_events("without", "Failed")
        assert "no basic auth credentials" in running.pulls[0].error

        await kubectl(
            "create", "secret", "docker-registry", "registry",
            "--docker-server=registry.example", "--docker-username=team", "--docker-password=word",
        )  # fmt: skip
        await kubectl.apply(pod("with", node, f"{APP}:v1", imagePullSecrets=[{"name": "registry"}]))
        await kubectl("wait", "pod/with", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


async def test_an_emulator_that_starts_again_carries_on(emulator: Emulators, kubectl: Kubectl, prefix: str) -> None:
    async with emulator(3, delete_nodes=False):
        await kubectl.apply(deployment(prefix, 6, f"{APP}:v1"))
        await kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        for node in range(3):
            await kubectl.apply(pod(f"ended-{node}", f"{prefix}-{node}", f"{APP}:v1"))
        for node in range(3):
            done = "--for=jsonpath={.status.phase}=Succeeded"
            await kubectl("wait", f"pod/ended-{node}", done, "--timeout=60s")
            listed = "--for=jsonpath={.status.images[0].names}"
            await kubectl("wait", f"node/{prefix}-{node}", listed, "--timeout=60s")
    before = {p["metadata"]["uid"] for p in await kubectl.items("pods")}

    async with emulator(3) as again:
        await kubectl("scale", "deployment/web", "--replicas=9")
        await kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        pods = await kubectl.items("pods")

        assert before < {p["metadata"]["uid"] for p in pods}
        assert not again.pulls
        assert {s["restartCount"] for p in pods for s in p["status"]["containerStatuses"]} == {0}

        await kubectl("delete", "deployment/web", "--cascade=foreground", "--wait", "--timeout=60s")
        left = [p["metadata"]["name"] for p in await kubectl.items("pods")]
        assert left == ["ended-0", "ended-1", "ended-2"]
