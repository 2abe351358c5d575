"""A rollback to images that are there passes the gate at once, and what is done to a workload while it is held."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e import gate
from e2e.cluster.selection import Cluster
from e2e.gate import ASKED, HELD
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

pytestmark = pytest.mark.timeout(180)
PLAN = LanePlan(nodes=6, prefix="gate-rollback", image_bytes=100_000_000)
REPLICAS = 6
SYSTEM = f"prewarm-gate-rollback-{os.getpid()}"
"""Namespace of the lease."""
KINDS = ("deployment", "statefulset")


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


def workload(kind: str, tag: str) -> dict[str, object]:
    spec: dict[str, object] = {
        "replicas": REPLICAS,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": pod_template(tag, PLAN, name="shop", startup_seconds=0.5),
    }
    if kind == "statefulset":
        spec |= {"serviceName": "shop", "podManagementPolicy": "Parallel"}
    metadata = {"name": "shop", "annotations": {"prewarm.dev/enabled": "true", **ASKED}}
    word = {"deployment": "Deployment", "statefulset": "StatefulSet"}[kind]
    return {"apiVersion": "apps/v1", "kind": word, "metadata": metadata, "spec": spec}


async def gated(lane: Lane, kind: str) -> None:
    """A workload of v1, rolled out, whose next change would be held."""
    await lane.apply(workload(kind, "v1"))
    await lane.rolled_out(f"{kind}/shop")
    await asyncio.to_thread(gate.await_enforced, lane.cluster, lane.namespace, workload(kind, "v0"))


async def change(lane: Lane, kind: str, tag: str) -> None:
    await lane.kubectl("set", "image", f"{kind}/shop", f"app={REPOSITORY}:{tag}")


async def until_open(lane: Lane, kind: str) -> Mapping[str, Any]:
    """The workload once no hold is left on it."""
    seen: dict[str, Any] = {}

    async def is_open() -> bool:
        seen.update(await lane.get(kind, "shop"))
        return HELD not in seen["metadata"]["annotations"]

    await eventually(is_open, 90)
    return seen


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
        *("--namespace", lane.namespace, "get", kind, "shop", "--watch", "-o", f"jsonpath={path}"),
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


async def reasons(lane: Lane, count: int) -> list[str]:
    """Why gates were opened, in the order of the Events, once there are so many: they come after the gate is open."""
    words: list[str] = []

    async def told() -> bool:
        found: Mapping[str, Any] = await lane.get("events", "--field-selector", "reason=PrewarmGateOpened")
        events = sorted(found["items"], key=lambda event: str(event["metadata"]["creationTimestamp"]))
        words[:] = [str(event["message"]).partition(":")[0] for event in events]
        return len(words) >= count

    await eventually(told)
    return words


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rollback_to_images_that_are_there_waits_for_no_pull(lane: Lane, kind: str) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    await on_all_nodes(lane, "v1")
    await change(lane, kind, "v2")
    await until_open(lane, kind)
    await lane.rolled_out(f"{kind}/shop")
    await outcomes(controller, 2 * REPLICAS)
    assert await reasons(lane, 1) == ["Warm"]
    downloads, pulls = lane.downloads("v1"), pulls_by_us(lane, "v1")
    assert set(downloads) == set(lane.emulator.fleet.nodes)

    async with watched(lane, kind) as seen:
        await eventually(lambda: _is(bool(seen)))
        await change(lane, kind, "v1")
        await until_open(lane, kind)
        await eventually(lambda: _is(any(marker for _, marker in seen) and not seen[-1][1]))
    held = next(at for at, marker in seen if marker)
    opened = next(at for at, marker in seen if not marker and at > held)
    print(f"held for {opened - held:.3f} s by a watch")
    await lane.rolled_out(f"{kind}/shop")

    assert sorted(await reasons(lane, 2)) == ["NothingToPull", "Warm"]
    assert lane.downloads("v1") == downloads
    assert pulls_by_us(lane, "v1") == pulls
    assert opened - held < 1.0


async def _is(so: bool) -> bool:
    return so


def pulls_by_us(lane: Lane, tag: str) -> int:
    """Pullers that had an image looked for, whether or not it was there."""
    return sum(pull.image == f"{REPOSITORY}:{tag}" and "-pull-" in pull.pod for pull in lane.emulator.pulls)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_change_during_the_hold_is_the_one_that_starts_warm(lane: Lane, kind: str) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    await change(lane, kind, "v2")
    first: Mapping[str, Any] = await lane.get(kind, "shop")
    marker = first["metadata"]["annotations"][HELD]
    await change(lane, kind, "v3")
    second: Mapping[str, Any] = await lane.get(kind, "shop")
    assert second["metadata"]["annotations"].get(HELD) == marker
    await until_open(lane, kind)
    await lane.rolled_out(f"{kind}/shop")
    assert (lane.cold_starts("v3"), lane.cold_starts("v2")) == (0, 0)
    assert await reasons(lane, 1) == ["Warm"]


async def test_a_partition_that_a_person_sets_during_the_hold_stays(lane: Lane) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "statefulset")
    await change(lane, "statefulset", "v2")
    canary = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": REPLICAS - 1}}}}
    await lane.kubectl("patch", "statefulset", "shop", "-p", json.dumps(canary))
    found = await until_open(lane, "statefulset")
    assert found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == REPLICAS - 1
    assert await reasons(lane, 1) == ["Resumed"]


async def test_the_copy_of_a_held_workload_is_not_left_paused(lane: Lane) -> None:
    """As a backup that is restored: nobody else would resume it."""
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    copy: dict[str, Any] = workload("deployment", "v1")
    copy["metadata"]["annotations"][HELD] = "2100-01-01T00:00:00Z generation=2"
    copy["spec"]["paused"] = True
    await lane.apply(copy)
    found = await until_open(lane, "deployment")
    assert "paused" not in found["spec"]
    await lane.rolled_out("deployment/shop")
    assert await reasons(lane, 1) == ["Damaged"]
