"""Every query of the dashboard answers on a real Prometheus that scrapes a controller with the chart's rights."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from e2e.cluster.processes import GuardedProcess, ProcessError, free_port, log_tail
from e2e.cluster.selection import Cluster
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.manifests import PROJECT, get, install_definitions
from e2e.plain_yaml import TARGET
from prewarm.cluster.connection import Connection

REPLICAS = 8
POOL = {"prewarm.dev/test": "dashboard"}
SCRAPE_SECONDS = 1
RANGE = "5m"
READY_SECONDS = 60.0
CATCH_UP_SECONDS = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    async def query(self, expression: str) -> list[float]:
        """Values of an instant query's series.

        Raises:
            AssertionError: if the server refuses the query, with its own words.
        """
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/api/v1/query", data={"query": expression}) as answer,
        ):
            body = await answer.json()
        assert body["status"] == "success", body["error"]
        return [float(series["value"][1]) for series in body["data"]["result"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Title and query of each panel, with Grafana's variables filled in."""
    dashboard = json.loads((PROJECT / "charts/prewarm/dashboards/prewarm.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", RANGE).replace("$__range", RANGE)
            yield panel["title"], query.replace("$job", ".+")


def deployment(image: str) -> str:
    """An annotated Deployment that rolls out one pod after the other."""
    container = {"name": "web", "image": image, "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    return yaml.safe_dump(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "annotations": {"prewarm.dev/enabled": "true"}},
            "spec": {
                "replicas": REPLICAS,
                "minReadySeconds": 2,
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"nodeSelector": POOL, "containers": [container]},
                },
            },
        }
    )


@pytest.fixture
async def emulator(cluster: Cluster, namespace: str) -> AsyncIterator[Emulator]:
    plan = NodePlan(count=REPLICAS, prefix=namespace, labels=POOL, bandwidth=100e6)
    connection = Connection.load(cluster.kubeconfig, cluster.context)
    async with Emulator(connection, EmulatorOptions(nodes=plan, delete_nodes=True)) as emulator:
        yield emulator


@pytest.fixture
async def controller(cluster: Cluster, tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    """The controller with the rights that the plain YAML gives it."""
    if cluster.control_plane is None:
        pytest.skip("a token for the controller's service account is had from the local control plane only")
    documents = [document for document in yaml.safe_load_all(TARGET.read_text()) if document["kind"] != "Deployment"]
    install = yaml.safe_dump_all(documents)
    await asyncio.to_thread(install_definitions, cluster)
    await asyncio.to_thread(cluster.kubectl, "apply", "--server-side", "-f", "-", manifest=install)
    kubeconfig = await cluster.control_plane.service_account_kubeconfig(SYSTEM_NAMESPACE, "prewarm")
    controller = ControllerProcess(kubeconfig, tmp_path / "controller.log")
    try:
        await controller.start()
        await controller.wait_leading()
        yield controller
    finally:
        await controller.stop()
        await asyncio.to_thread(
            cluster.kubectl, "delete", "--ignore-not-found", "--timeout=60s", "-f", "-", manifest=install
        )


@pytest.fixture
async def server(
    prometheus: tuple[Path, Path], controller: ControllerProcess, tmp_path: Path
) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes the controller."""
    target = {"job_name": "prewarm", "static_configs": [{"targets": [f"127.0.0.1:{controller.port}"]}]}
    configuration = {"global": {"scrape_interval": f"{SCRAPE_SECONDS}s"}, "scrape_configs": [target]}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [
        prometheus[0],
        f"--config.file={tmp_path / 'prometheus.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'series'}",
        f"--web.listen-address={address}",
    ]
    log = tmp_path / "prometheus.log"
    process = GuardedProcess.start("prometheus", command, log)
    running = Prometheus(f"http://{address}")
    try:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _scraped(running):
                    process.check()
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise ProcessError(f"Prometheus did not scrape; its log ends:\n{log_tail(log)}") from None
        yield running
    finally:
        await process.stop(grace_seconds=10)


async def _scraped(server: Prometheus) -> bool:
    try:
        return await server.query('up{job="prewarm"} == 1') != []
    except aiohttp.ClientError:
        return False


async def roll_out(cluster: Cluster, namespace: str, image: str) -> None:
    """Apply the Deployment with an image and wait until all of its pods run it."""
    await asyncio.to_thread(cluster.kubectl, "apply", "-n", namespace, "-f", "-", manifest=deployment(image))
    await asyncio.to_thread(cluster.kubectl, "rollout", "status", "deployment/web", "-n", namespace, "--timeout=110s")


@pytest.mark.timeout(300)
async def test_every_query_answers_after_a_prewarmed_rollout(
    cluster: Cluster, namespace: str, emulator: Emulator, controller: ControllerProcess, server: Prometheus
) -> None:
    await roll_out(cluster, namespace, "registry.test/web:v1")
    await roll_out(cluster, namespace, "registry.test/web:v2")
    emulator.check()
    controller.check()
    await _all_counted(server)
    answers = {(title, query): await server.query(query) for title, query in dashboard_queries()}
    empty = [key for key, values in answers.items() if not values]
    assert empty == []
    by_title = {title: values for (title, _), values in answers.items()}
    assert 0 < by_title["Prewarm hit ratio"][0] <= 1
    assert sum(by_title["Outcomes"]) > 0
    leads = [values for (title, _), values in answers.items() if title == "Lead time"]
    assert all(math.isfinite(value) for values in leads for value in values)
    assert by_title["Instances"] == [1.0], "the only instance is the active one"
    # Writes into a namespace that is being deleted are forbidden to everyone, and say so in other words.
    assert "is forbidden: User" not in controller.log.read_text(), "the chart's rights are enough"


@pytest.mark.timeout(300)
async def test_nothing_of_ours_is_on_the_workload(
    cluster: Cluster, namespace: str, emulator: Emulator, controller: ControllerProcess
) -> None:
    await roll_out(cluster, namespace, "registry.test/web:v3")
    await roll_out(cluster, namespace, "registry.test/web:v4")
    emulator.check()
    controller.check()
    managers = {
        entry["manager"]
        for kind in ("deployments", "replicasets")
        for item in _items(await asyncio.to_thread(get, cluster, kind, "-n", namespace, "--show-managed-fields"))
        for entry in item["metadata"]["managedFields"]
    }
    assert managers == {"kubectl-client-side-apply", "kube-controller-manager"}
    await asyncio.to_thread(
        cluster.kubectl, "wait", "--for=delete", "imagecaches.prewarm.dev", "--all", "-n", namespace, "--timeout=30s"
    )


async def _all_counted(server: Prometheus) -> None:
    """Return once every start of the last rollout was judged and scraped."""
    counted = 'sum(prewarm_container_starts_total{outcome!="hit_present"})'
    async with asyncio.timeout(CATCH_UP_SECONDS):
        while sum(await server.query(counted)) < REPLICAS:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(SCRAPE_SECONDS)


def _items(found: dict[str, object]) -> list[dict[str, dict[str, list[dict[str, str]]]]]:
    items = found["items"]
    assert isinstance(items, list)
    return items
