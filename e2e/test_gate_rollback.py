"""A rollback to images that are there passes the gate at once, and what is done to a workload while it is held."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2e import gate
from e2e.cluster.selection import Cluster
from e2e.gated import GATED, HELD, REPLICAS, annotations, change, gated, opened, reasons, spec_of, workload
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, running
from e2e.manifests import install_definitions

pytestmark = pytest.mark.timeout(180)
PLAN = LanePlan(nodes=6, prefix="gate-rollback", image_bytes=100_000_000)
SYSTEM = f"prewarm-gate-rollback-{os.getpid()}"
"""Namespace of the lease."""
KINDS = ("Deployment", "StatefulSet")


@pytest.fixture(scope="module")
def policies(cluster: Cluster) -> Iterator[None]:
    gate.install(cluster, SYSTEM)
    yield
    gate.remove(cluster, SYSTEM)


@pytest.fixture
async def lane(cluster: Cluster, policies: None, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


async def on_all_nodes(lane: Lane, tag: str) -> None:
    """Pull an image on every node."""
    await lane.apply(
        {
            "apiVersion": "prewarm.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": tag},
            "spec": {"cacheSpec": [{"images": [f"{REPOSITORY}:{tag}"], "nodeSelector": PLAN.pool}]},
        }
    )
    await lane.kubectl("wait", f"imagecaches.prewarm.dev/{tag}", "--for=condition=Ready", "--timeout=60s")


@asynccontextmanager
async def watched(lane: Lane, kind: str) -> AsyncIterator[list[tuple[float, str]]]:
    """The markers that a watch shows, with the time at which each came; starts with the workload as it is."""
    seen: list[tuple[float, str]] = []
    path = r'{.metadata.annotations.prewarm\.dev/gate-held}{"\n"}'
    cluster = lane.cluster
    process = await asyncio.create_subprocess_exec(
        *(str(cluster.kubectl_binary), "--kubeconfig", str(cluster.kubeconfig), "--context", cluster.context),
        *("--namespace", lane.namespace, "get", kind.lower(), "shop", "--watch", "-o", f"jsonpath={path}"),
        stdout=asyncio.subprocess.PIPE,
    )

    async def follow() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            seen.append((time.monotonic(), line.decode().strip()))

    following = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        process.kill()
        await process.wait()
        await following


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rollback_to_images_that_are_there_waits_for_no_pull(lane: Lane, kind: str) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    await on_all_nodes(lane, "v1")
    await change(lane, kind, "v2")
    await opened(lane, kind)
    await lane.rolled_out(f"{kind.lower()}/shop")
    await outcomes(controller, 2 * REPLICAS)
    assert await reasons(lane) == ["Warm"]
    downloads, pulls = lane.downloads("v1"), pulls_by_us(lane, "v1")
    assert set(downloads) == set(lane.emulator.fleet.nodes)

    async with watched(lane, kind) as seen:
        await eventually(lambda: _is(bool(seen)))
        await change(lane, kind, "v1")
        await opened(lane, kind)
        await eventually(lambda: _is(any(marker for _, marker in seen) and not seen[-1][1]))
    held_at = next(at for at, marker in seen if marker)
    opened_at = next(at for at, marker in seen if not marker and at > held_at)
    print(f"held for {opened_at - held_at:.3f} s by a watch")
    await lane.rolled_out(f"{kind.lower()}/shop")

    await eventually(lambda: _both(lane))
    assert lane.downloads("v1") == downloads
    assert pulls_by_us(lane, "v1") == pulls
    assert opened_at - held_at < 1.0


async def _is(so: bool) -> bool:
    return so


async def _both(lane: Lane) -> bool:
    return sorted(await reasons(lane)) == ["NothingToPull", "Warm"]


def pulls_by_us(lane: Lane, tag: str) -> int:
    """Pullers that had an image looked for, whether or not it was there."""
    return sum(pull.image == f"{REPOSITORY}:{tag}" and "-pull-" in pull.pod for pull in lane.emulator.pulls)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_change_during_the_hold_is_the_one_that_starts_warm(lane: Lane, kind: str) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    await change(lane, kind, "v2")
    marker = (await annotations(lane, kind))[HELD]
    await change(lane, kind, "v3")
    assert (await annotations(lane, kind)).get(HELD) == marker
    await opened(lane, kind)
    await lane.rolled_out(f"{kind.lower()}/shop")
    assert (lane.cold_starts("v3"), lane.cold_starts("v2")) == (0, 0)
    assert await reasons(lane) == ["Warm"]


async def test_a_partition_that_a_person_sets_during_the_hold_stays(lane: Lane) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "StatefulSet")
    await change(lane, "StatefulSet", "v2")
    canary = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": REPLICAS - 1}}}}
    await lane.kubectl("patch", "statefulset", "shop", "-p", json.dumps(canary))
    await opened(lane, "StatefulSet")
    assert (await spec_of(lane, "StatefulSet"))["updateStrategy"]["rollingUpdate"]["partition"] == REPLICAS - 1
    assert await reasons(lane) == ["Resumed"]


async def test_the_copy_of_a_held_workload_is_not_left_paused(lane: Lane) -> None:
    """As a backup that is restored: nobody else would resume it."""
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    marker = "2100-01-01T00:00:00Z generation=2"
    await lane.apply(workload(lane, "Deployment", "v1", {**GATED, HELD: marker}, paused=True))
    await opened(lane, "Deployment")
    assert "paused" not in await spec_of(lane, "Deployment")
    await lane.rolled_out("deployment/shop")
    assert await reasons(lane) == ["Damaged"]
