"""What people do to workloads with a gate, on a real API server: kubectl's verbs, with and without a hold.

No controller runs: what is held stays so until a person lets it go.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import gate, hooks
from e2e.cluster.selection import Cluster
from e2e.gate import ASKED, HELD
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, pod_template, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
PLAN = LanePlan(nodes=3, prefix="gate-verbs", image_bytes=1_000_000, varied=False)
NAME = f"prewarm-gate-verbs-{os.getpid()}"
KINDS = ("deployment", "statefulset")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    folder: Path = tmp_path_factory.mktemp("verbs")
    await asyncio.to_thread(gate.install, cluster, NAME)
    await asyncio.to_thread(gate.write_lease, cluster, NAME)
    async with running(cluster, NAME, folder, PLAN) as found:
        yield found
    await asyncio.to_thread(gate.remove, cluster, NAME)


def manifest(kind: str, name: str, tag: str = "v1") -> dict[str, Any]:
    template: Any = pod_template(tag, PLAN, name=name)
    template["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "statefulset":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    metadata = {"name": name, "annotations": {**ASKED}}
    word = {"deployment": "Deployment", "statefulset": "StatefulSet"}[kind]
    return {"apiVersion": "apps/v1", "kind": word, "metadata": metadata, "spec": spec}


async def gated(lane: Lane, kind: str, name: str) -> None:
    """A workload of v1, rolled out, whose next change would be held."""
    await lane.apply(manifest(kind, name))
    await lane.rolled_out(f"{kind}/{name}")
    await asyncio.to_thread(gate.await_enforced, lane.cluster, lane.namespace, manifest(kind, name, "v0"))


async def change(lane: Lane, kind: str, name: str, tag: str) -> None:
    await lane.kubectl("set", "image", f"{kind}/{name}", f"app={REPOSITORY}:{tag}")


async def found(lane: Lane, kind: str, name: str) -> Mapping[str, Any]:
    return await lane.get(kind, name)


def marker(workload: Mapping[str, Any]) -> str | None:
    """What the hold says, None if there is none; all of it is there, or nothing."""
    spec = workload["spec"]
    partition = spec.get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0)
    told: str | None = workload["metadata"]["annotations"].get(HELD)
    assert (spec.get("paused", False) or partition > 0) == (told is not None)
    return told


async def resume(lane: Lane, kind: str, name: str) -> None:
    """Let it go as a person does."""
    if kind == "deployment":
        await lane.kubectl("rollout", "resume", f"{kind}/{name}")
        return
    await lane.kubectl("patch", kind, name, "-p", '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}')


@pytest.mark.parametrize("kind", KINDS)
async def test_a_hold_outlives_what_is_done_meanwhile_and_ends_as_a_person_wishes(lane: Lane, kind: str) -> None:
    name = f"held-{kind}"
    await gated(lane, kind, name)
    await change(lane, kind, name, "v2")
    first = await found(lane, kind, name)
    told = marker(first)
    assert told is not None
    assert f" generation={first['metadata']['generation']}" in told

    await change(lane, kind, name, "v3")
    await lane.apply(manifest(kind, name, "v3"))
    await lane.kubectl("annotate", kind, name, "a=b")
    status = '{"status":{"conditions":[{"type":"Test","status":"True"}]}}'
    await lane.kubectl("patch", kind, name, "--subresource=status", "-p", status)
    await lane.kubectl("scale", f"{kind}/{name}", "--replicas=1")
    last = await found(lane, kind, name)
    assert marker(last) == told
    assert last["spec"]["replicas"] == 1
    assert last["spec"]["template"]["spec"]["containers"][0]["image"] == f"{REPOSITORY}:v3"
    pods: Mapping[str, Any] = await lane.get("pods", "-l", f"app={name}")
    assert {pod["spec"]["containers"][0]["image"] for pod in pods["items"]} == {f"{REPOSITORY}:v1"}

    await resume(lane, kind, name)
    await lane.rolled_out(f"{kind}/{name}")
    assert not lane.downloads("v2")


@pytest.mark.parametrize("kind", KINDS)
async def test_pods_that_are_added_to_what_is_held_have_the_old_image_and_all_roll_once_it_opens(
    lane: Lane, kind: str
) -> None:
    name = tag = f"grown-{kind}"
    await gated(lane, kind, name)
    await change(lane, kind, name, tag)
    told = marker(await found(lane, kind, name))
    await lane.kubectl("scale", f"{kind}/{name}", "--replicas=4")

    async def added() -> bool:
        status: Mapping[str, Any] = (await found(lane, kind, name))["status"]
        return status.get("availableReplicas") == 4

    await eventually(added)
    assert marker(await found(lane, kind, name)) == told
    assert await images(lane, name) == [f"{REPOSITORY}:v1"] * 4
    assert not lane.downloads(tag)

    async with hooks.running(lane.cluster.kubeconfig, "open-gates", "--context", lane.cluster.context) as command:
        await command.printed()
    assert marker(await found(lane, kind, name)) is None
    await lane.rolled_out(f"{kind}/{name}")

    async def rolled() -> bool:
        return await images(lane, name) == [f"{REPOSITORY}:{tag}"] * 4

    await eventually(rolled)


async def images(lane: Lane, name: str) -> list[str]:
    """What each pod of a workload runs."""
    pods: Mapping[str, Any] = await lane.get("pods", "-l", f"app={name}")
    return [pod["spec"]["containers"][0]["image"] for pod in pods["items"]]


async def test_kubectl_refuses_to_restart_or_undo_what_is_held(lane: Lane) -> None:
    name = "refused"
    await gated(lane, "deployment", name)
    await lane.kubectl("rollout", "restart", f"deployment/{name}")
    await lane.rolled_out(f"deployment/{name}")
    await change(lane, "deployment", name, "v2")
    for verb in ("undo", "restart"):
        with pytest.raises(RuntimeError, match="paused"):
            await lane.kubectl("rollout", verb, f"deployment/{name}")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_is_not_held_and_an_undo_is(lane: Lane, kind: str) -> None:
    name = f"undone-{kind}"
    await gated(lane, kind, name)
    await lane.kubectl("rollout", "restart", f"{kind}/{name}")
    assert marker(await found(lane, kind, name)) is None
    await lane.rolled_out(f"{kind}/{name}")
    await lane.kubectl("annotate", kind, name, "prewarm.dev/gate-")
    await change(lane, kind, name, "v2")
    await lane.rolled_out(f"{kind}/{name}")
    await lane.kubectl("annotate", kind, name, "prewarm.dev/gate=5m")
    await asyncio.to_thread(gate.await_enforced, lane.cluster, lane.namespace, manifest(kind, name, "v0"))
    await lane.kubectl("rollout", "undo", f"{kind}/{name}")
    assert marker(await found(lane, kind, name)) is not None


async def test_what_a_person_pauses_is_theirs(lane: Lane) -> None:
    name = "paused"
    await gated(lane, "deployment", name)
    await lane.kubectl("rollout", "pause", f"deployment/{name}")
    await change(lane, "deployment", name, "v2")
    paused = await found(lane, "deployment", name)
    assert paused["spec"]["paused"]
    assert HELD not in paused["metadata"]["annotations"]
    await lane.kubectl("rollout", "resume", f"deployment/{name}")
    assert marker(await found(lane, "deployment", name)) is None
    await lane.rolled_out(f"deployment/{name}")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_held_can_be_deleted(lane: Lane, kind: str) -> None:
    name = f"deleted-{kind}"
    await gated(lane, kind, name)
    await change(lane, kind, name, "v2")
    await lane.kubectl("delete", kind, name, "--timeout=30s")


@pytest.mark.parametrize("kind", KINDS)
async def test_scaling_and_dry_runs_write_no_hold_and_what_was_scaled_is_held(lane: Lane, kind: str) -> None:
    """A HorizontalPodAutoscaler writes as kubectl scale does."""
    name = f"scaled-{kind}"
    await gated(lane, kind, name)
    await lane.kubectl("scale", f"{kind}/{name}", "--replicas=3")
    assert marker(await found(lane, kind, name)) is None
    await lane.rolled_out(f"{kind}/{name}")
    image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{REPOSITORY}:v2"}]
    options = ("--type=json", "-p", json.dumps(image), "--dry-run=server", "-o", "json")
    tried = json.loads(await lane.kubectl("patch", kind, name, *options))
    assert marker(tried) is not None
    assert marker(await found(lane, kind, name)) is None
    await change(lane, kind, name, "v2")
    assert marker(await found(lane, kind, name)) is not None
