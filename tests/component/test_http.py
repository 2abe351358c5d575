"""Metrics in the scraper's format, probes with their reason."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from prewarm.accounting import ByteUse, ByteVerdict
from prewarm.controller.http import Probes, serve
from prewarm.controller.metrics import Metrics
from prewarm.model.outcomes import ContainerStart, Outcome
from prewarm.model.workloads import WorkloadKey

WEB = WorkloadKey("Deployment", "shop", "web")


@dataclass
class Served:
    """A running server and what its probes say."""

    metrics: Metrics
    port: int = 0
    problem: str = ""

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.text()

    async def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        _, text = await self.get("/metrics")
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served(Metrics(version="1.2.3"))
    probes = Probes(live=lambda: served.problem, ready=lambda: "not read yet: pods")
    async with serve("127.0.0.1", 0, served.metrics.registry, probes) as served.port:
        yield served


def start(outcome: Outcome, **seconds: float) -> ContainerStart:
    return replace(ContainerStart(WEB, "uid", "app", "web:v1", "node-a", outcome, 10.0, 11.0), **seconds)


async def test_probes_say_why(served: Served) -> None:
    assert await served.get("/healthz") == (200, "ok\n")
    served.problem = "stuck"
    assert await served.get("/healthz") == (503, "stuck\n")
    assert await served.get("/readyz") == (503, "not read yet: pods\n")


async def test_every_outcome_has_a_series_from_the_start(served: Served) -> None:
    samples = await served.samples()
    assert all(samples["prewarm_container_starts_total", (outcome.value,)] == 0 for outcome in Outcome)
    assert samples["prewarm_build_info", ("1.2.3",)] == 1


async def test_starts_and_bytes_are_counted(served: Served) -> None:
    served.metrics.count_starts([start(Outcome.HIT_PREWARMED, lead_seconds=30.0, saved_seconds=20.0)])
    uses = (ByteUse.PULLED, ByteUse.USED)
    served.metrics.count_bytes([ByteVerdict(use, "node-a", "web:v1", 1000) for use in uses])
    samples = await served.samples()
    assert samples["prewarm_container_starts_total", ("hit_prewarmed",)] == 1
    assert samples["prewarm_lead_seconds_sum", ()] == 30
    assert samples["prewarm_saved_seconds_total", ()] == 20
    assert (samples["prewarm_pulled_bytes_total", ()], samples["prewarm_used_bytes_total", ()]) == (1000, 1000)
    assert samples["prewarm_predicted_nodes_total", ("used",)] == 1


async def test_images_pods_and_nodes_are_never_labels(served: Served) -> None:
    served.metrics.count_starts([start(outcome) for outcome in Outcome])
    _, text = await served.get("/metrics")
    assert "node-a" not in text
    assert "web" not in text


async def test_workloads_are_labels_only_where_asked_for() -> None:
    metrics = Metrics(version="1", workload_labels=True)
    metrics.count_starts([start(Outcome.LATE)])
    labels = {"outcome": "late", "namespace": "shop", "workload": "deployment/web"}
    assert metrics.registry.get_sample_value("prewarm_container_starts_total", labels) == 1
