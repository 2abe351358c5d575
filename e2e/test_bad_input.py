"""Wrong manifests: each is refused or told in clear words, and none keeps the controller from the others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from e2e.bad_input import APP, HOSTILE_IMAGES, REFUSED, TOLD
from e2e.cluster.selection import Cluster
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.manifests import install_definitions
from e2e.release import attempt
from prewarm.cluster.connection import Connection

POOL = {"prewarm.dev/test": "bad-input"}
GARBAGE = {
    "prewarm.dev/enabled": "tru\u0000e".replace("\u0000", " "),
    "prewarm.dev/policy": "../../default",
    "prewarm.dev/headroom": "-1e309%",
    "prewarm.dev/exclude-containers": "," * 50_000,
    "prewarm.dev/plan": '{"trigger":[[[[',
    "prewarm.dev/refresh": "x" * 60_000,
}


@pytest.fixture(scope="module", autouse=True)
def definitions(cluster: Cluster) -> None:
    install_definitions(cluster)


def image_cache(name: str, spec: object, **annotations: str) -> str:
    """As JSON, which is YAML, too; without a spec if it is None."""
    metadata = {"name": name, "annotations": annotations}
    manifest = {"apiVersion": "prewarm.dev/v1alpha1", "kind": "ImageCache", "metadata": metadata}
    return json.dumps(manifest if spec is None else {**manifest, "spec": spec})


@pytest.mark.parametrize("fault", REFUSED)
def test_the_server_refuses_and_says_what_would_be_right(cluster: Cluster, fault: str) -> None:
    spec, words = REFUSED[fault]
    said = attempt(cluster, "create", "--validate=strict", "-f", "-", manifest=image_cache("bad", spec))
    assert words in said


@pytest.fixture
async def controller(cluster: Cluster, tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", manifest=yaml.safe_dump(system))
    plan = NodePlan(count=2, prefix="bad-input", labels=POOL, bandwidth=100e6)
    connection = Connection.load(cluster.kubeconfig, cluster.context)
    running = ControllerProcess(
        cluster.kubeconfig, tmp_path / "controller.log", {"PREWARM_LEASE_DURATION_SECONDS": "2"}
    )
    async with Emulator(connection, EmulatorOptions(nodes=plan, delete_nodes=True)):
        try:
            await running.start()
            yield running
        finally:
            await running.stop()


@pytest.mark.timeout(240)
async def test_status_tells_the_rest_and_the_controller_goes_on(
    cluster: Cluster, namespace: str, controller: ControllerProcess
) -> None:
    async def kubectl(*arguments: str, manifest: str | None = None) -> str:
        controller.check()
        return await asyncio.to_thread(cluster.kubectl, "-n", namespace, *arguments, manifest=manifest)

    def shown(status: object) -> str:
        """Conditions as kubectl shows them, reasons, failures."""
        assert isinstance(status, dict)
        conditions = [f"{c['type']} {c['status']} {c['reason']} {c['message']}" for c in status.get("conditions", [])]
        return "\n".join([*conditions, json.dumps(status, ensure_ascii=False).replace('\\"', '"')])

    async def pending() -> dict[str, str]:
        """Caches whose status does not say what is wrong with them yet, and what it says."""
        found = json.loads(await kubectl("get", "imagecaches.prewarm.dev", "-o", "json"))["items"]
        said = {cache["metadata"]["name"]: shown(cache.get("status", {})) for cache in found}
        assert all(len(status) < 40_000 for status in said.values())
        return {name: said[name] for name, (_, words) in TOLD.items() if words not in said[name]}

    wrong = [image_cache(name, spec, **GARBAGE) for name, (spec, _) in TOLD.items()]
    await kubectl("create", "-f", "-", manifest="\n---\n".join(wrong))
    await kubectl("create", "deployment", "web", f"--image={APP}", "--replicas=0")
    await kubectl("annotate", "deployment", "web", *(f"{name}={value}" for name, value in GARBAGE.items()))
    good = {"cacheSpec": [{"images": [APP], "nodeSelector": POOL}]}
    await kubectl("create", "-f", "-", manifest=image_cache("good", good))
    await kubectl("wait", "imagecaches.prewarm.dev/good", "--for=condition=Ready", "--timeout=60s")
    untold = await pending()
    for _ in range(60):
        if not untold:
            break
        await asyncio.sleep(1.0)
        untold = await pending()
    assert untold == {}
    assert (await controller.metrics())["prewarm_leader"] == 1
    again = {"cacheSpec": [{"images": ["registry.test/web:v2"], "nodeSelector": POOL}]}
    await kubectl("create", "-f", "-", manifest=image_cache("again", again))
    await kubectl("wait", "imagecaches.prewarm.dev/again", "--for=condition=Ready", "--timeout=60s")
    assert "Traceback" not in controller.log.read_text(encoding="utf-8")


def test_there_are_enough_kinds_of_faults() -> None:
    assert len(REFUSED) + len(TOLD) >= 30
    assert {"command substitution", "newline", "NUL", "double quote", "blank"} <= HOSTILE_IMAGES.keys()
