"""Removing images under the chart's own rights and admission policies, switched on and off while pods are there."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.selection import Cluster, Lane
from e2e.controller import ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.lane import eventually
from e2e.release import CONTROLLER, RELEASE, RELEASE_NAMESPACE, as_user, attempt, installed, refusal, upgrade
from prewarm.cluster.connection import Connection
from prewarm.model.images import parse_reference
from prewarm.model.nodes import Node
from prewarm.model.removals import Removal
from prewarm.puller.purge_pods import create
from prewarm.puller.settings import PurgeSettings
from prewarm.simulation.registry import Registries

pytestmark = pytest.mark.timeout(240)

APP, KEPT = "registry.test/web:v1", "registry.test/base:v1"
OWN = "registry.test/prewarm:v1"
POOL = {"prewarm.dev/test": "purging"}
NODES = ("purging-0", "purging-1")
SETTINGS = PurgeSettings(enabled=True, namespace=RELEASE_NAMESPACE, image=OWN)
SWITCHED = ("--set", "settings.purge=true"), ("--set", "settings.purge=false")
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, helm: Path) -> Iterator[None]:
    if cluster.lane is Lane.EXISTING:
        pytest.skip("installing and uninstalling would take away what is installed on an existing cluster")
    with installed(cluster, helm, *SWITCHED[0]):
        yield


def purger(name: str = "prewarm-purge-1", node: str = NODES[0], **fields: Any) -> dict[str, Any]:
    """The manifest that the controller sends."""
    settings = PurgeSettings(**{field: getattr(SETTINGS, field) for field in SETTINGS.__struct_fields__} | fields)
    removals = [Removal(APP, (f"{APP}-alias",))]
    intent = create(Node(node, uid="uid-1", runtime_version="containerd://2.1.4"), removals, name, 1, settings)
    manifest: dict[str, Any] = json.loads(json.dumps(intent.manifest))
    return manifest


PURGERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "host network": {"host_network": True},
    "pull secrets": {"pull_secrets": ("a", "b")},
    "a class": {"priority_class": "prewarm-puller"},
    "another socket": {"socket": "/run/k3s/containerd/containerd.sock"},
}


@pytest.mark.parametrize("shape", PURGERS)
def test_every_purge_pod_of_ours_passes(cluster: Cluster, shape: str) -> None:
    assert refusal(cluster, CONTROLLER, RELEASE_NAMESPACE, purger(**PURGERS[shape])) == ""


def spec(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]
    return found


def main(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


ALTERED: dict[str, tuple[Change, str]] = {
    "a folder of the node": (
        lambda p: spec(p)["volumes"][0]["hostPath"].update(path="/", type="Directory"),
        "the runtime's socket, and nothing else",
    ),
    "a path of any type": (
        lambda p: spec(p)["volumes"][0]["hostPath"].pop("type"),
        "the runtime's socket, and nothing else",
    ),
    "a secret": (
        lambda p: spec(p)["volumes"].append({"name": "extra", "secret": {"secretName": "a"}}),
        "the runtime's socket, and nothing else",
    ),
    "another command": (lambda p: main(p).update(command=["/bin/sh"]), "runs prewarm remove-images"),
    "no command": (lambda p: main(p).pop("command"), "runs prewarm remove-images"),
    "privileged": (
        lambda p: main(p)["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
        "neither privileged",
    ),
    "token": (lambda p: spec(p).update(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "host PID": (lambda p: spec(p).update(hostPID=True), "shares no processes"),
    "no label": (lambda p: p["metadata"]["labels"].pop("prewarm.dev/purger"), "only pods with the label"),
}


@pytest.mark.parametrize("shape", ALTERED)
def test_no_other_pod_reaches_the_node(cluster: Cluster, shape: str) -> None:
    change, words = ALTERED[shape]
    pod = purger()
    change(pod)
    assert words in refusal(cluster, CONTROLLER, RELEASE_NAMESPACE, pod)


def test_other_namespaces_get_no_purge_pod(cluster: Cluster, namespace: str) -> None:
    pod = purger()
    pod["metadata"]["namespace"] = namespace
    assert "only pods with the label" in refusal(cluster, CONTROLLER, namespace, pod)


def check(log: Path) -> None:
    """Nothing that the controller asked for was denied."""
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "denied request" not in said


@asynccontextmanager
async def controller(cluster: Cluster, log: Path, *, purge: bool) -> AsyncIterator[ControllerProcess]:
    """A controller with the rights of the chart, for the length of the block; none of its requests may be denied."""
    assert cluster.control_plane is not None
    kubeconfig = await cluster.control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, RELEASE)
    settings = {
        "PREWARM_LEASE_DURATION_SECONDS": "2",
        "PREWARM_PURGE": str(purge).lower(),
        "PREWARM_PURGE_IMAGE": OWN,
    }
    running = ControllerProcess(kubeconfig, log, settings)
    try:
        await running.start()
        yield running
    finally:
        await running.stop()
    check(log)


@pytest.fixture
async def emulator(cluster: Cluster) -> AsyncIterator[Emulator]:
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    plan = NodePlan(count=len(NODES), prefix="purging", labels=POOL, bandwidth=100e6)
    options = EmulatorOptions(
        nodes=plan, registries=Registries(convention=Catalog(default_size=10_000_000)), delete_nodes=True
    )
    async with Emulator(Connection.load(cluster.kubeconfig, cluster.context), options) as running:
        yield running


async def purge_pods(cluster: Cluster) -> list[str]:
    found = await asyncio.to_thread(
        cluster.kubectl, "get", "pods", "-n", RELEASE_NAMESPACE, "-l", "prewarm.dev/purger=true", "-o", "name"
    )
    return found.split()


async def test_images_are_removed_under_the_charts_own_rights(
    cluster: Cluster, namespace: str, tmp_path: Path, emulator: Emulator
) -> None:
    def holders(image: str) -> list[str]:
        reference = parse_reference(image)
        return [name for name in NODES if emulator.fleet.kubelet(name).store.find(reference) is not None]

    cache = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": "warm", "namespace": namespace},
        "spec": {"cacheSpec": [{"images": [APP, KEPT], "nodeSelector": POOL}], "deletionPolicy": "Purge"},
    }

    async def kubectl(*arguments: str, manifest: str | None = None) -> str:
        return await asyncio.to_thread(cluster.kubectl, "-n", namespace, *arguments, manifest=manifest)

    async with controller(cluster, tmp_path / "controller.log", purge=True):
        await kubectl("create", "-f", "-", manifest=json.dumps(cache))
        await kubectl("wait", "imagecaches.prewarm.dev/warm", "--for=condition=Ready", "--timeout=60s")
        assert holders(APP) == holders(KEPT) == list(NODES)
        smaller = {"spec": {"cacheSpec": [{"images": [KEPT], "nodeSelector": POOL}]}}
        await kubectl("patch", "imagecaches.prewarm.dev/warm", "--type=merge", "-p", json.dumps(smaller))
        path = '{.status.conditions[?(@.type=="Purged")].reason}'
        await kubectl("wait", "imagecaches.prewarm.dev/warm", f"--for=jsonpath={path}=Removed", "--timeout=60s")
        assert (holders(APP), holders(KEPT)) == ([], list(NODES))
        await kubectl("delete", "imagecaches.prewarm.dev/warm", "--timeout=5s")

        async def gone() -> bool:
            return not holders(KEPT) and not await purge_pods(cluster)

        await eventually(gone)


async def test_switched_off_while_pods_are_there_none_is_left(
    cluster: Cluster, helm: Path, tmp_path: Path, emulator: Emulator
) -> None:
    """One has ended, one waits for a node that does not answer; neither may be made any more."""
    names = ("prewarm-purge-ended", "prewarm-purge-waits")
    create = ("create", "-n", RELEASE_NAMESPACE, "-f", "-", *as_user(CONTROLLER))
    for name, node in zip(names, (NODES[0], "purging-silent"), strict=True):
        assert await asyncio.to_thread(attempt, cluster, *create, manifest=json.dumps(purger(name, node))) == ""
    ended = f"pod/{names[0]}"
    phase = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    await asyncio.to_thread(cluster.kubectl, "wait", "-n", RELEASE_NAMESPACE, ended, *phase)
    await asyncio.to_thread(upgrade, cluster, helm, *SWITCHED[1])
    try:

        async def in_force() -> bool:
            said = await asyncio.to_thread(refusal, cluster, CONTROLLER, RELEASE_NAMESPACE, purger("another"))
            return "only pods with the label" in said

        await eventually(in_force)
        async with controller(cluster, tmp_path / "controller.log", purge=False):

            async def nothing_left() -> bool:
                return not await purge_pods(cluster)

            await eventually(nothing_left)
    finally:
        await asyncio.to_thread(upgrade, cluster, helm, *SWITCHED[0])
