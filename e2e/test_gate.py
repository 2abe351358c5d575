"""The gate on a real control plane: with it, every pod of a rollout starts warm; and it always opens."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e import gate, hooks
from e2e.cluster.selection import Cluster
from e2e.gated import GATED, HELD, REPLICAS, annotations, change, gated, opened, reasons, spec_of, workload
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=12, prefix="gate", image_bytes=100_000_000)
WRONG = f"{REPOSITORY}:missing-v9"
"""The registry does not have it."""
SYSTEM = f"prewarm-gate-{os.getpid()}"
"""Namespace of the lease."""


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


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_every_pod_of_a_held_rollout_starts_warm(lane: Lane, kind: str) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    before = await outcomes(controller, REPLICAS)
    await change(lane, kind, "v2")
    assert HELD in await annotations(lane, kind)
    await opened(lane, kind)
    await lane.rolled_out(f"{kind.lower()}/shop")
    after = await outcomes(controller, 2 * REPLICAS)
    warm = sum(after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "hit_present"))

    assert warm == REPLICAS, after
    assert lane.cold_starts("v2") == 0
    events = await lane.kubectl("get", "events", "--field-selector", "reason=PrewarmGateOpened", "-o", "name")
    assert len(events.split()) == 1
    spec = await spec_of(lane, kind)
    assert "paused" not in spec
    if kind == "StatefulSet":
        assert spec["updateStrategy"]["rollingUpdate"]["partition"] == 0


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_a_policy_gates_what_it_covers_and_an_annotation_goes_first(lane: Lane, kind: str) -> None:
    name = lane.namespace
    covered = {"prewarm.dev/enabled": "true", "prewarm.dev/policy": name}
    spec = {"rollout": {"gate": "4m"}}
    api = "prewarm.dev/v1alpha1"
    await lane.apply({"apiVersion": api, "kind": "PrewarmPolicy", "metadata": {"name": name}, "spec": spec})
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind, covered)
    opted_out = workload(lane, kind, "v0", {**covered, "prewarm.dev/gate": "false"})
    await asyncio.to_thread(gate.await_not_held, lane.cluster, lane.namespace, opted_out)
    await change(lane, kind, "v2")
    marker = (await annotations(lane, kind))[HELD]
    assert marker.endswith(" for=240")
    await opened(lane, kind)
    await lane.rolled_out(f"{kind.lower()}/shop")
    assert lane.cold_starts("v2") == 0

    await lane.kubectl("delete", "prewarmpolicies.prewarm.dev", name)
    probe = workload(lane, kind, "v0", covered)
    await asyncio.to_thread(gate.await_not_held, lane.cluster, lane.namespace, probe)


async def test_without_a_controller_nothing_is_held(lane: Lane) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "Deployment")
    controller.kill()
    await asyncio.to_thread(gate.await_not_held, lane.cluster, lane.namespace, workload(lane, "Deployment", "v0"))
    await change(lane, "Deployment", "v2")
    assert HELD not in await annotations(lane, "Deployment")
    await lane.rolled_out("deployment/shop")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_pulls_that_fail_open_it(lane: Lane, kind: str) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    before = await spec_of(lane, kind)
    await lane.kubectl("set", "image", f"{kind.lower()}/shop", f"app={WRONG}")
    assert HELD in await annotations(lane, kind)
    await opened(lane, kind)
    assert await reasons(lane) == ["Failed"]
    after = await spec_of(lane, kind)
    assert without_template(after) == without_template(before)


async def test_a_partition_is_put_back_as_the_marker_has_it(lane: Lane) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "StatefulSet")
    container = {"name": "app", "image": WRONG}
    held = {
        "metadata": {"annotations": {HELD: f"{datetime.now(UTC).isoformat(timespec='seconds')} partition=2"}},
        "spec": {
            "template": {"spec": {"containers": [container]}},
            "updateStrategy": {"rollingUpdate": {"partition": REPLICAS}},
        },
    }
    await lane.kubectl("patch", "statefulset", "shop", "-p", json.dumps(held))
    await opened(lane, "StatefulSet")
    assert await reasons(lane) == ["Failed"]
    assert (await spec_of(lane, "StatefulSet"))["updateStrategy"]["rollingUpdate"] == {"partition": 2}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_what_a_person_resumes_stays_open(lane: Lane, kind: str) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, kind)
    before = await spec_of(lane, kind)
    await change(lane, kind, "v2")
    if kind == "Deployment":
        await lane.kubectl("rollout", "resume", "deployment/shop")
    else:
        let_go = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
        await lane.kubectl("patch", "statefulset", "shop", "-p", json.dumps(let_go))
    await lane.rolled_out(f"{kind.lower()}/shop")
    await opened(lane, kind)
    assert without_template(await spec_of(lane, kind)) == without_template(before)


async def test_a_dead_controllers_gates_are_opened_by_the_command(lane: Lane) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "Deployment", {**GATED, "prewarm.dev/gate": "1s"})
    await gated(lane, "StatefulSet")
    controller.signal(signal.SIGSTOP)
    await change(lane, "Deployment", "v2")
    await change(lane, "StatefulSet", "v2")
    assert HELD in await annotations(lane, "Deployment")
    controller.kill()

    async def expired() -> bool:
        return "1 gate opened" in await open_gates(lane, "--expired")

    await eventually(expired)
    assert HELD in await annotations(lane, "StatefulSet")
    assert "1 gate opened" in await open_gates(lane)
    await lane.rolled_out("deployment/shop")
    await lane.rolled_out("statefulset/shop")


def without_template(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "template"}


async def open_gates(lane: Lane, *options: str) -> str:
    """Run the command that the CronJob runs, as an administrator."""
    async with hooks.running(lane.cluster.kubeconfig, "open-gates", *options) as command:
        return await command.printed()
