"""The real kube-scheduler and priorities: the table that the unit tests of our preemption use is what it does."""

import asyncio
import json

import pytest

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.control_plane import ControlPlane
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.live import read_cluster
from prewarm.model.intents import DISRUPTION_BUDGETS, NODES, PODS, PRIORITY_CLASSES, Json
from tests.unit.placement.preemption_cases import CASES, NODE_CPU, PRIORITY, PreemptionCase, Standing

Object = dict[str, Json]
_BEGIN = "2026-01-01T00:{minute:02d}:{second:02d}Z"
_NEVER = "does-not-preempt"
_LABEL = "case"


def _class(name: str, value: int, policy: str) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "preemptionPolicy": policy,
    }


def _node(case: PreemptionCase, name: str) -> Object:
    amounts: Object = {"cpu": str(NODE_CPU), "memory": "32Gi", "pods": "110"}
    taints: list[Json] = [{"key": "team", "effect": "NoSchedule"}] if name in case.tainted else []
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"{case.name}-{name}", "labels": {_LABEL: case.name}},
        "spec": {"taints": taints},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def _pod(name: str, cpu: int, priority_class: str, port: int, **spec: Json) -> Object:
    ports: list[Json] = [{"containerPort": port, "hostPort": port}] if port else []
    container: Object = {"name": "main", "image": "registry.test/app:v1", "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "priorityClassName": priority_class,
            "terminationGracePeriodSeconds": 0,
            "containers": [{**container, "resources": {"requests": {"cpu": str(cpu)}}}],
            **spec,
        },
    }


async def _stand(client: Client, case: PreemptionCase, node: str, index: int, one: Standing) -> None:
    """A pod that runs since some moment, as its kubelet would say."""
    name = f"{case.name}-{node}{index}"
    manifest = _pod(name, one.cpu, f"p{one.priority}", one.port, nodeName=f"{case.name}-{node}")
    labels: Object = {"protected": "yes"} if one.protected else {}
    await client.create(PODS, "default", {**manifest, "metadata": {"name": name, "labels": labels}})
    since = _BEGIN.format(minute=one.started // 60, second=one.started % 60)
    status: Object = {"phase": "Running", "startTime": since}
    said: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "status": status}
    await client.apply(PODS, "default", name, said, "status")


async def _nodes_take_pods(client: Client) -> None:
    """Return once no node has the taint with which it was created: until then, nothing helps to schedule."""
    for _ in range(150):
        nodes = (await read_cluster(client, 0.0, only=[NODES])).nodes.values()
        if all(taint.key == "team" for node in nodes for taint in node.taints):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("the nodes did not become ready")


async def _settled(client: Client) -> dict[str, str]:
    """The node that each coming pod got or was promised, once the scheduler has given up on all others."""
    found: dict[str, str] = {}
    said: dict[str, list[str]] = {}
    wanted = {case.name for case in CASES}
    for _ in range(150):
        async for page in client.list_pages(PODS):
            for pod in json.loads(page)["items"]:
                name, status = pod["metadata"]["name"], pod["status"]
                if name not in wanted:
                    continue
                said[name] = [condition.get("message", "") for condition in status.get("conditions", ())]
                node = pod["spec"].get("nodeName") or status.get("nominatedNodeName")
                if node:
                    found[name] = node.removeprefix(f"{name}-")
                elif any("preemption:" in message for message in said[name]):
                    found.setdefault(name, "")
        if found.keys() == wanted:
            return found
        await asyncio.sleep(0.2)
    raise AssertionError({name: said.get(name) for name in wanted - found.keys()})


@pytest.mark.timeout(120)
async def test_the_table_of_preemption_is_what_the_scheduler_does(
    control_plane_binaries: ControlPlaneBinaries,
) -> None:
    assert control_plane_binaries.kubectl.exists()
    standing = [(case, node, one) for case in CASES for node, members in case.nodes.items() for one in members]
    budget: Object = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "all"},
        "spec": {"minAvailable": 100, "selector": {"matchLabels": {"protected": "yes"}}},
    }
    async with ControlPlane.start() as plane, Client(Connection.load(plane.kubeconfig, plane.context)) as client:
        for priority in sorted({PRIORITY} | {one.priority for _, _, one in standing}):
            await client.create(PRIORITY_CLASSES, "", _class(f"p{priority}", priority, "PreemptLowerPriority"))
        await client.create(PRIORITY_CLASSES, "", _class(_NEVER, PRIORITY, "Never"))
        await client.create(DISRUPTION_BUDGETS, "default", budget)
        for case in CASES:
            for node in case.nodes:
                await client.create(NODES, "", _node(case, node))
        await _nodes_take_pods(client)
        for case in CASES:
            for node, members in case.nodes.items():
                for index, one in enumerate(members):
                    await _stand(client, case, node, index, one)
        for case in CASES:
            importance = f"p{PRIORITY}" if case.preempts else _NEVER
            selector: Object = {_LABEL: case.name}
            await client.create(
                PODS, "default", _pod(case.name, case.cpu, importance, case.port, nodeSelector=selector)
            )
        found = await _settled(client)
    assert found == {case.name: case.fits for case in CASES}
