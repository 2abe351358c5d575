"""Jobs and runs of CronJobs on the real control plane: hits by our account and by the emulated kubelets' own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="jobs", image_bytes=50_000_000)
ENABLED = {"prewarm.dev/enabled": "true"}
ONE_PER_NODE = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "report"}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
}


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def job_spec(*, runs: float, **spec: object) -> dict[str, object]:
    """A Job's spec whose pods run so many seconds, each on a node of its own."""
    template = pod_template("v1", PLAN, name="report", restartPolicy="Never", affinity=ONE_PER_NODE)
    metadata = template["metadata"]
    assert isinstance(metadata, dict)
    metadata["annotations"] = {"emulator.prewarm.dev/run-seconds": str(runs)}
    return {"template": template, **spec}


def job(**spec: object) -> dict[str, object]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "report", "annotations": ENABLED},
        "spec": spec,
    }


async def pulled_on(lane: Lane, nodes: int) -> None:
    async def pulled() -> bool:
        return len(lane.downloads("v1")) == nodes

    await eventually(pulled)


async def test_a_run_of_a_cron_job_finds_its_image_where_its_pods_fit(lane: Lane) -> None:
    controller = await lane.controller()
    tainted = min(lane.emulator.fleet.nodes)
    await lane.kubectl("taint", "node", tainted, "kept=for-others:NoSchedule")
    fitting = PLAN.nodes - 1
    await lane.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "report", "annotations": ENABLED},
            "spec": {
                "schedule": "@every 20s",
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": job_spec(runs=30, parallelism=fitting, completions=fitting)},
            },
        }
    )
    await pulled_on(lane, fitting)
    counted = await outcomes(controller, fitting)

    assert counted.get("hit_prewarmed", 0) == fitting, counted
    assert lane.cold_starts("v1") == 0
    assert tainted not in lane.downloads("v1")


async def test_pods_that_follow_in_a_running_job_find_their_image(lane: Lane) -> None:
    """One pod at a time. The first comes with the Job itself, before anything can be pulled, so its miss is certain;
    the second may take a node that cannot be told from others, as nobody knows when the first one ends.
    """
    controller = await lane.controller()
    await lane.apply(job(**job_spec(runs=3, parallelism=1, completions=3)))
    counted = await outcomes(controller, 3)

    warm = counted.get("hit_prewarmed", 0) + counted.get("hit_present", 0)
    assert warm >= 1, counted
    assert counted.get("miss_unpredicted", 0) >= 1, counted
    assert lane.cold_starts("v1") == 3 - warm - counted.get("late", 0)


async def test_a_suspended_job_announces_its_pods(lane: Lane) -> None:
    controller = await lane.controller()
    await lane.apply(job(**job_spec(runs=1, parallelism=4, completions=4, suspend=True)))
    await pulled_on(lane, PLAN.nodes)
    await lane.kubectl("patch", "job/report", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    counted = await outcomes(controller, 4)

    assert counted.get("hit_prewarmed", 0) == 4, counted
    assert lane.cold_starts("v1") == 0
