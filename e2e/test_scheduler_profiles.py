"""What only a fresh scheduler with a configuration of its own shows: the sampling of nodes, and a second profile.

Usually the order of nodes in the scheduler's cache is not known, and 16 workers race for the feasible ones, so that
nobody can tell which nodes are sampled. Here there is one worker, and nodes come one after the other to a scheduler
that has placed nothing: the order, the number of nodes and how the start moves on show in where pods go.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import yaml

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.control_plane import ControlPlane
from e2e.placement.playing import OPTIONS, seen
from e2e.placement.rows import HOST, NAMESPACE, Object, container
from e2e.placement.tables_neighbours import ZONE
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.live import read_cluster
from prewarm.model.intents import NODES, PODS, REPLICA_SETS, Json
from prewarm.model.plans import Batch, Demand, RejectReason, Trigger
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import cluster_arrays, place
from prewarm.placement.sampling import NodeSampling

_PACKED = "packed"
_CONFIGURATION: Object = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "parallelism": 1,
    "profiles": [
        {"schedulerName": "default-scheduler"},
        {
            "schedulerName": _PACKED,
            "pluginConfig": [
                {
                    "name": "NodeResourcesFit",
                    "args": {
                        "scoringStrategy": {
                            "type": "MostAllocated",
                            "resources": [{"name": "cpu", "weight": 100}, {"name": "memory", "weight": 100}],
                        }
                    },
                }
            ],
        },
    ],
}


@asynccontextmanager
async def _fresh(directory: Path) -> AsyncIterator[Client]:
    path = directory / "scheduler.yaml"
    path.write_text(yaml.safe_dump(_CONFIGURATION))
    options = replace(OPTIONS, scheduler_configuration=path)
    async with ControlPlane.start(options) as plane, Client(Connection.load(plane.kubeconfig)) as client:
        yield client


def _node(name: str, zone: str, cpu: int = 100, **spec: Json) -> Object:
    amounts: Object = {"cpu": str(cpu), "memory": "100Gi", "pods": "110"}
    ready: list[Json] = [{"type": "Ready", "status": "True"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {HOST: name, ZONE: zone}},
        "spec": spec,
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": ready},
    }


def _pod(name: str, requests: dict[str, str] | None = None, /, **spec: Json) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container(requests)], **spec},
    }


def _preferring(names: Iterable[str]) -> Object:
    """Each node a little more than the one before."""
    terms: list[Json] = [
        {
            "weight": weight,
            "preference": {"matchExpressions": [{"key": HOST, "operator": "In", "values": [name]}]},
        }
        for weight, name in enumerate(names, 1)
    ]
    return {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}}


async def _landing(client: Client, name: str) -> str:
    found = await seen(client, PODS, {name}, lambda pod: bool(pod["spec"].get("nodeName")))
    return str(found[name]["spec"]["nodeName"])


class _AsMade:
    """Draws nothing: nodes stay in the order in which they were made, and the first one is where a search starts."""

    def permuted(self, values: np.ndarray[tuple[int, ...], np.dtype[np.int64]], axis: int) -> object:
        assert axis == 1
        return values

    def integers(self, high: int, size: int) -> object:
        assert high > 0
        return np.zeros(size, dtype=np.int64)


@pytest.mark.timeout(300)
async def test_sampling_takes_nodes_of_each_zone_in_turn_and_goes_on_where_it_ended(
    control_plane_binaries: ControlPlaneBinaries, tmp_path: Path
) -> None:
    assert control_plane_binaries.kubectl.exists()
    sizes = {"z1": 70, "z2": 50, "z3": 30}
    async with _fresh(tmp_path) as client:
        for zone, size in sizes.items():
            for number in range(size):
                name = f"{zone}-{number:03d}"
                await client.create(NODES, "", _node(name, zone))
        snapshot = await read_cluster(client, 0.0)
        arrays = cluster_arrays(snapshot)
        sampling = NodeSampling(arrays, 1, cast("np.random.Generator", _AsMade()))
        every = np.ones((1, arrays.count), dtype=np.bool_)
        for search in range(6):
            sampled = sampling.select(every, np.ones(1, dtype=np.bool_))[0]
            within, without = arrays.names_at(np.flatnonzero(sampled)), arrays.names_at(np.flatnonzero(~sampled))
            # Were one node more sampled, the pod would go there; were one less, later searches would begin elsewhere.
            best = within[search * 7 % len(within)]
            liked = [best, *(name for name in without[:99])]
            name = f"pod-{search}"
            await client.create(PODS, NAMESPACE, _pod(name, **_preferring(liked)))
            assert await _landing(client, name) == best, (search, within)


@pytest.mark.timeout(300)
async def test_of_another_profile_only_the_filters_are_known(
    control_plane_binaries: ControlPlaneBinaries, tmp_path: Path
) -> None:
    assert control_plane_binaries.kubectl.exists()
    busy = {"cpu": "60", "memory": "60Gi"}
    async with _fresh(tmp_path) as client:
        taint: list[Json] = [{"key": "team", "effect": "NoSchedule"}]
        await client.create(NODES, "", _node("busy", "z1"))
        await client.create(NODES, "", _node("free", "z1"))
        await client.create(NODES, "", _node("tainted", "z1", taints=taint))
        await client.create(PODS, NAMESPACE, _pod("standing", busy, nodeName="busy"))
        for name in ("default-scheduler", _PACKED):
            labels: Object = {"app": name}
            spec: Object = {"containers": [container({"cpu": "1", "memory": "1Gi"})], "schedulerName": name}
            owner: Object = {"replicas": 0, "selector": {"matchLabels": labels}}
            owner["template"] = {"metadata": {"labels": labels}, "spec": spec}
            metadata: Object = {"name": name}
            await client.create(
                REPLICA_SETS,
                NAMESPACE,
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": owner},
            )
        snapshot = await read_cluster(client, 0.0)
        predicted, landed = {}, {}
        for name in ("default-scheduler", _PACKED):
            found = snapshot.replica_sets[NAMESPACE, name]
            key = WorkloadKey("ReplicaSet", NAMESPACE, name)
            batches = (Batch(0.0, 1),)
            demand = Demand(key, found.uid, Trigger.WHAT_IF, "r", found.template.shape.images, found.template, batches)
            predicted[name] = place(demand, snapshot)
            await client.merge_patch(REPLICA_SETS, NAMESPACE, name, {"spec": {"replicas": 1}})
            pods = await seen(
                client,
                PODS,
                {name},
                lambda pod: bool(pod["spec"].get("nodeName")),
                lambda pod: str(pod["metadata"].get("labels", {}).get("app", "")),
            )
            landed[name] = pods[name]["spec"]["nodeName"]
            assert found.template.shape.foreign_scheduler == (name == _PACKED)
    assert landed == {"default-scheduler": "free", _PACKED: "busy"}
    ours = {name: {node.name for node in found.nodes} for name, found in predicted.items()}
    assert ours == {"default-scheduler": {"free"}, _PACKED: {"busy", "free"}}
    assert predicted[_PACKED].predictability < 0.9
    assert all(found.rejected == ((RejectReason.TAINT_TOLERATION, 1),) for found in predicted.values())
