"""The gate on a real control plane: with it, every pod of a rollout starts warm; and it always opens."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from e2e import gate
from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=12, prefix="gate", image_bytes=100_000_000)
REPLICAS = 6
GATED = {"prewarm.dev/enabled": "true", "prewarm.dev/gate": "5m"}
HELD = "prewarm.dev/gate-held"
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


def workload(kind: str, tag: str, annotations: Mapping[str, str] = GATED) -> dict[str, object]:
    spec: dict[str, object] = {
        "replicas": REPLICAS,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": pod_template(tag, PLAN, name="shop", startup_seconds=1),
    }
    if kind == "StatefulSet":
        spec |= {"serviceName": "shop", "podManagementPolicy": "Parallel"}
    metadata = {"name": "shop", "annotations": dict(annotations)}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


async def gated(lane: Lane, kind: str, annotations: Mapping[str, str] = GATED) -> None:
    """A workload of v1, rolled out, whose next change would be held."""
    await lane.apply(workload(kind, "v1", annotations))
    await lane.rolled_out(f"{kind.lower()}/shop")
    probe = workload(kind, "v0", annotations)
    await asyncio.to_thread(gate.await_enforced, lane.cluster, lane.namespace, probe)


async def change(lane: Lane, kind: str, tag: str) -> None:
    await lane.kubectl("set", "image", f"{kind.lower()}/shop", f"app={REPOSITORY}:{tag}")


async def annotations(lane: Lane, kind: str) -> Mapping[str, str]:
    metadata = (await lane.get(kind.lower(), "shop"))["metadata"]
    assert isinstance(metadata, Mapping)
    found = metadata.get("annotations", {})
    assert isinstance(found, Mapping)
    return found


async def reasons(lane: Lane) -> list[str]:
    """Why gates were opened, in the words of the Events, once there is one: they come after the gate is open."""
    path = r'{range .items[?(@.reason=="PrewarmGateOpened")]}{.message}{"\n"}{end}'
    lines: list[str] = []

    async def told() -> bool:
        lines[:] = (await lane.kubectl("get", "events", "-o", f"jsonpath={path}")).splitlines()
        return bool(lines)

    await eventually(told)
    return [line.partition(":")[0] for line in lines]


async def opened(lane: Lane, kind: str) -> None:
    async def is_open() -> bool:
        return HELD not in await annotations(lane, kind)

    await eventually(is_open, 90)


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
    spec = (await lane.get(kind.lower(), "shop"))["spec"]
    assert isinstance(spec, Mapping)
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
    opted_out = workload(kind, "v0", {**covered, "prewarm.dev/gate": "false"})
    await asyncio.to_thread(gate.await_not_held, lane.cluster, lane.namespace, opted_out)
    await change(lane, kind, "v2")
    marker = (await annotations(lane, kind))[HELD]
    assert marker.endswith(" for=240")
    await opened(lane, kind)
    await lane.rolled_out(f"{kind.lower()}/shop")
    assert lane.cold_starts("v2") == 0

    await lane.kubectl("delete", "prewarmpolicies.prewarm.dev", name)
    probe = workload(kind, "v0", covered)
    await asyncio.to_thread(gate.await_not_held, lane.cluster, lane.namespace, probe)


async def test_without_a_controller_nothing_is_held(lane: Lane) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "Deployment")
    controller.kill()
    await asyncio.to_thread(gate.await_not_held, lane.cluster, lane.namespace, workload("Deployment", "v0"))
    await change(lane, "Deployment", "v2")
    assert HELD not in await annotations(lane, "Deployment")
    await lane.rolled_out("deployment/shop")


async def test_pulls_that_fail_open_it(lane: Lane) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "Deployment")
    await lane.kubectl("set", "image", "deployment/shop", f"app={WRONG}")
    await opened(lane, "Deployment")
    assert await reasons(lane) == ["Failed"]


async def test_a_rollback_to_what_is_there_is_let_go_at_once(lane: Lane) -> None:
    controller = await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "Deployment")
    await change(lane, "Deployment", "v2")
    await opened(lane, "Deployment")
    await lane.rolled_out("deployment/shop")
    await outcomes(controller, 2 * REPLICAS)
    pulled = sum(lane.downloads("v1").values())
    await change(lane, "Deployment", "v1")
    await opened(lane, "Deployment")
    await lane.rolled_out("deployment/shop")
    assert sum(lane.downloads("v1").values()) <= pulled + REPLICAS


async def test_what_a_person_resumes_stays_open(lane: Lane) -> None:
    await lane.controller(PREWARM_NAMESPACE=SYSTEM)
    await gated(lane, "Deployment")
    await change(lane, "Deployment", "v2")
    await lane.kubectl("rollout", "resume", "deployment/shop")
    await lane.rolled_out("deployment/shop")
    await opened(lane, "Deployment")
    spec = (await lane.get("deployment", "shop"))["spec"]
    assert isinstance(spec, Mapping)
    assert "paused" not in spec


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


async def open_gates(lane: Lane, *options: str) -> str:
    """Run the command that the CronJob and the uninstall hook run."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "prewarm", "open-gates", *options, "--kubeconfig", str(lane.cluster.kubeconfig)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
