"""The real kube-scheduler and bound volumes: the table that the unit tests of our filters use is what it does."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import pytest

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.control_plane import ControlPlane
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.model.intents import CSI_NODES, NODES, PODS, VOLUME_CLAIMS, VOLUMES, Json
from tests.unit.placement.attach_cases import CASES as ATTACH_CASES
from tests.unit.placement.attach_cases import LIMITS, STANDING, driver
from tests.unit.placement.volume_cases import CASES, HOST, VolumeCase
from tests.unit.placement.volume_cases import NODES as LABELS

Object = dict[str, Json]
_REFUSALS = (
    "didn't match PersistentVolume's node affinity",
    "had no available volume zone",
    "exceed max volume count",
)


def _node(name: str, labels: Mapping[str, str]) -> Object:
    amounts: Object = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels)},
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


def _claim(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "volumeName": name,
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


async def _settled(client: Client, expected: AbstractSet[str]) -> dict[str, bool]:
    """Whether each pod got its node, once the scheduler has refused all others for their volumes."""
    found: dict[str, bool] = {}
    said: dict[str, list[str]] = {}
    for _ in range(150):
        async for page in client.list_pages(PODS):
            for pod in json.loads(page)["items"]:
                name = pod["metadata"]["name"]
                if name not in expected:
                    continue
                said[name] = [condition.get("message", "") for condition in pod["status"].get("conditions", ())]
                if pod["spec"].get("nodeName"):
                    found[name] = True
                elif any(reason in message for message in said[name] for reason in _REFUSALS):
                    found[name] = False
        if found.keys() == expected:
            return found
        await asyncio.sleep(0.2)
    raise AssertionError({name: said.get(name) for name in expected - found.keys()})


@pytest.mark.timeout(120)
async def test_the_table_of_bound_volumes_is_what_the_scheduler_does(
    control_plane_binaries: ControlPlaneBinaries,
) -> None:
    assert control_plane_binaries.kubectl.exists()
    async with ControlPlane.start() as plane, Client(Connection.load(plane.kubeconfig, plane.context)) as client:
        for name in LABELS:
            await client.create(NODES, "", _node(name, LABELS[name]))
        for case in CASES:
            await client.create(VOLUMES, "", _volume(case))
            await client.create(VOLUME_CLAIMS, "default", _claim(case.name))
        for case in CASES:
            for name in LABELS:
                await client.create(PODS, "default", _pod(case, name))
        found = await _settled(client, {f"{case.name}-{name}" for case in CASES for name in LABELS})
    fits = {case.name: "".join(name for name in LABELS if found[f"{case.name}-{name}"]) for case in CASES}
    assert fits == {case.name: case.fits for case in CASES}


def _csi_node(name: str, limits: Mapping[str, int | None]) -> Object:
    drivers: list[Json] = [
        {"name": kind, "nodeID": name, **({} if count is None else {"allocatable": {"count": count}})}
        for kind, count in limits.items()
    ]
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": name},
        "spec": {"drivers": drivers},
    }


def _attachable(name: str, kind: str) -> Object:
    source: Object = {"csi": {"driver": kind, "volumeHandle": name}} if kind else {"hostPath": {"path": "/data"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "claimRef": {"namespace": "default", "name": name},
            **source,
        },
    }


def _user(name: str, claims: Iterable[str], **spec: Json) -> Object:
    volumes: list[Json] = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    containers: list[Json] = [{"name": "main", "image": "registry.test/app:v1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, "volumes": volumes, **spec},
    }


@pytest.mark.timeout(120)
async def test_the_table_of_attach_limits_is_what_the_scheduler_does(
    control_plane_binaries: ControlPlaneBinaries,
) -> None:
    """Each case has nodes and volumes of its own, since a pod that lands changes what the node attaches."""
    assert control_plane_binaries.kubectl.exists()
    async with ControlPlane.start() as plane, Client(Connection.load(plane.kubeconfig, plane.context)) as client:
        for case in ATTACH_CASES:
            standing = {volume for pods in STANDING.values() for claims in pods for volume in claims}
            for volume in sorted(standing | set(case.volumes)):
                await client.create(VOLUMES, "", _attachable(f"{case.name}-{volume}", driver(volume)))
                await client.create(VOLUME_CLAIMS, "default", _claim(f"{case.name}-{volume}"))
            for node, pods in STANDING.items():
                name = f"{case.name}-{node}"
                await client.create(CSI_NODES, "", _csi_node(name, LIMITS[node]))
                await client.create(NODES, "", _node(name, {HOST: name}))
                for index, claims in enumerate(pods):
                    used = [f"{case.name}-{claim}" for claim in claims]
                    await client.create(PODS, "default", _user(f"{name}-{index}", used, nodeName=name))
        for case in ATTACH_CASES:
            for node in STANDING:
                name = f"{case.name}-{node}"
                wanted = [f"{case.name}-{volume}" for volume in case.volumes]
                await client.create(PODS, "default", _user(name, wanted, nodeSelector={HOST: name}))
        found = await _settled(client, {f"{case.name}-{node}" for case in ATTACH_CASES for node in STANDING})
    fits = {case.name: "".join(node for node in STANDING if found[f"{case.name}-{node}"]) for case in ATTACH_CASES}
    assert fits == {case.name: case.fits for case in ATTACH_CASES}
