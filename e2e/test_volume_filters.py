"""The real kube-scheduler and bound volumes: the table that the unit tests of our filters use is what it does."""

import asyncio
import json

import pytest

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.control_plane import ControlPlane
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.model.intents import NODES, PODS, VOLUME_CLAIMS, VOLUMES, Json
from tests.unit.placement.volume_cases import CASES, HOST, VolumeCase
from tests.unit.placement.volume_cases import NODES as LABELS

Object = dict[str, Json]
_REFUSALS = ("didn't match PersistentVolume's node affinity", "had no available volume zone")


def _node(name: str) -> Object:
    amounts: Object = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(LABELS[name])},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def _volume(case: VolumeCase) -> Object:
    terms: list[Json] = [
        {"matchExpressions": [{"key": r.key, "operator": r.operator.value, "values": list(r.values)} for r in term]}
        for term in case.terms
    ]
    affinity: Object = {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}} if terms else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": case.name, "labels": dict(case.labels)},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/data"},
            "storageClassName": "none",
            "claimRef": {"namespace": "default", "name": case.name},
            **affinity,
        },
    }


def _claim(case: VolumeCase) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": case.name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "volumeName": case.name,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def _pod(case: VolumeCase, node: str) -> Object:
    """A pod that asks for one node: bound, or refused."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{case.name}-{node}"},
        "spec": {
            "nodeSelector": {HOST: node},
            "containers": [{"name": "main", "image": "registry.test/app:v1"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": case.name}}],
        },
    }


async def _settled(client: Client) -> dict[str, bool]:
    """Whether each pod got its node, once the scheduler has refused all others for their volumes."""
    found: dict[str, bool] = {}
    said: dict[str, list[str]] = {}
    for _ in range(150):
        async for page in client.list_pages(PODS):
            for pod in json.loads(page)["items"]:
                name = pod["metadata"]["name"]
                said[name] = [condition.get("message", "") for condition in pod["status"].get("conditions", ())]
                if pod["spec"].get("nodeName"):
                    found[name] = True
                elif any(reason in message for message in said[name] for reason in _REFUSALS):
                    found[name] = False
        if len(found) == len(CASES) * len(LABELS):
            return found
        await asyncio.sleep(0.2)
    raise AssertionError({name: said[name] for name in said.keys() - found.keys()})


@pytest.mark.timeout(120)
async def test_the_table_of_bound_volumes_is_what_the_scheduler_does(
    control_plane_binaries: ControlPlaneBinaries,
) -> None:
    assert control_plane_binaries.kubectl.exists()
    async with ControlPlane.start() as plane, Client(Connection.load(plane.kubeconfig, plane.context)) as client:
        for name in LABELS:
            await client.create(NODES, "", _node(name))
        for case in CASES:
            await client.create(VOLUMES, "", _volume(case))
            await client.create(VOLUME_CLAIMS, "default", _claim(case))
        for case in CASES:
            for name in LABELS:
                await client.create(PODS, "default", _pod(case, name))
        found = await _settled(client)
    fits = {case.name: "".join(name for name in LABELS if found[f"{case.name}-{name}"]) for case in CASES}
    assert fits == {case.name: case.fits for case in CASES}
