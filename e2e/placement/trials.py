"""Lets the real scheduler place a case's pods, several times from the same start, and takes the snapshot before."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from e2e.cluster.components import Component
from e2e.cluster.control_plane import ControlPlane
from e2e.placement.cases import NAMESPACE, Case, Object
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError
from prewarm.cluster.live import read_cluster
from prewarm.model.intents import (
    NODES,
    PODS,
    PRIORITY_CLASSES,
    REPLICA_SETS,
    SERVICES,
    VOLUME_CLAIMS,
    VOLUMES,
    Json,
    Resource,
)
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey

T = TypeVar("T")
_TOGETHER = 16
_TIMEOUT_SECONDS, _TIMEOUT_SECONDS_A_NODE = 60.0, 0.3
_POLL_SECONDS, _POLL_SECONDS_A_NODE = 0.2, 0.002
"""Looking reads all nodes and pods, which the scheduler should not have to wait for."""
_SEEN = (NODES, PODS, VOLUMES, VOLUME_CLAIMS)
_RIVAL = "rival"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True)
class Trial:
    """What was known before, what was asked, and where the scheduler put the pods in each run."""

    snapshot: ClusterSnapshot
    demand: Demand
    runs: tuple[Counter[str], ...]
    old_nodes: frozenset[str]
    rivals: tuple[Demand, ...] = ()
    """What is known of workloads that change at the same moment."""


async def run_trial(plane: ControlPlane, case: Case, *, runs: int = 3) -> Trial:
    """Build the case's cluster in an empty control plane, place the pods `runs` times, and clear up.

    The scheduler is restarted between runs: its node order and start index are drawn anew, as nobody knows them.

    Raises:
        TimeoutError: pods found no node.
    """
    async with Client(Connection.load(plane.kubeconfig, plane.context)) as client:
        cluster = _Cluster(client, case)
        async with cluster.built():
            before = await read_cluster(client, 0.0)
            placed = []
            for _ in range(runs):
                placed.append(await cluster.place_new())
                await cluster.take_back()
                await plane.stop_component(Component.KUBE_SCHEDULER)
                await plane.start_component(Component.KUBE_SCHEDULER)
            old = frozenset(pod.node_name for pod in before.pods.values() if pod.labels.get("rev") == "1")
            return Trial(before, cluster.demand(before), tuple(placed), old, cluster.rivals(before))


class _Cluster:
    def __init__(self, client: Client, case: Case) -> None:
        self._client = client
        self._case = case
        self._growing = "1" if case.scale_out else "2"

    @asynccontextmanager
    async def built(self) -> AsyncIterator[None]:
        case = self._case
        try:
            await _each(case.nodes, lambda node: self._client.create(NODES, "", node))
            await self._until(lambda seen: all(seen.nodes[name].ready for name in _names(case.nodes)))
            await _each(case.classes, lambda one: self._client.create(PRIORITY_CLASSES, "", one))
            await self._fill()
            if case.service:
                await self._client.create(SERVICES, NAMESPACE, _service())
            for volume in case.volumes:
                await self._client.create(VOLUMES, "", volume)
                (name,) = _names([volume])
                await self._client.create(VOLUME_CLAIMS, NAMESPACE, _claim(name))
            for revision, replicas in (("1", case.old), ("2", 0)):
                manifest = _replica_set(case, revision, replicas)
                await self._client.create(REPLICA_SETS, NAMESPACE, manifest)
            await self._client.create(REPLICA_SETS, NAMESPACE, _rival())
            await self._until(lambda seen: len(_bound(seen, "1")) == case.old)
            await self._mark_old()
            yield
        finally:
            await self._clear()

    async def place_new(self) -> Counter[str]:
        """Scale up and wait until every new pod has a node."""
        known = {pod.key for pod in _bound(await read_cluster(self._client, 0.0), self._growing)}
        wanted = len(known) + self._case.new
        await self._scale(_RIVAL, self._case.rivals)
        await self._scale(f"web-{self._growing}", wanted)
        seen = await self._until(lambda seen: len(_bound(seen, self._growing)) == wanted)
        return Counter(pod.node_name for pod in _bound(seen, self._growing) if pod.key not in known)

    async def take_back(self) -> None:
        """Scale down again; the deletion cost keeps the pods that were there before."""
        wanted = self._case.old if self._case.scale_out else 0
        await self._scale(_RIVAL, 0)
        await self._scale(f"web-{self._growing}", wanted)
        await self._until(lambda seen: _numbers(seen, self._growing) == (wanted, 0))
        if self._case.classes:
            # Some of them made room.
            await self._fill()

    def demand(self, snapshot: ClusterSnapshot) -> Demand:
        """The same question to prewarm."""
        return _demand(snapshot, f"web-{self._growing}", self._case.new)

    def rivals(self, snapshot: ClusterSnapshot) -> tuple[Demand, ...]:
        """What the other workload brings."""
        return (_demand(snapshot, _RIVAL, self._case.rivals),) if self._case.rivals else ()

    async def _mark_old(self) -> None:
        """Pods of the first revision cost more to delete than those that a trial adds."""
        pods = _bound(await read_cluster(self._client, 0.0), "1")
        patch: Object = {"metadata": {"annotations": {_DELETION_COST: "100"}}}
        await _each(pods, lambda pod: self._client.merge_patch(PODS, NAMESPACE, pod.name, patch))

    async def _fill(self) -> None:
        """Create the background pods that are not there."""
        there = {pod.name for pod in (await read_cluster(self._client, 0.0, only=_SEEN)).pods.values()}
        missing = [pod for pod in self._case.background if _names([pod])[0] not in there]
        await _each(missing, lambda pod: self._client.create(PODS, NAMESPACE, pod))

    async def _scale(self, name: str, replicas: int) -> None:
        patch: Object = {"spec": {"replicas": replicas}}
        await self._client.merge_patch(REPLICA_SETS, NAMESPACE, name, patch)

    async def _clear(self) -> None:
        for name in ("web-1", "web-2", _RIVAL):
            await self._delete(REPLICA_SETS, NAMESPACE, name)
        await self._delete(SERVICES, NAMESPACE, "web")
        left = await read_cluster(self._client, 0.0)
        await _each(left.pods.values(), lambda pod: self._delete(PODS, pod.namespace, pod.name))
        await _each(_names(self._case.nodes), lambda name: self._delete(NODES, "", name))
        await _each(_names(self._case.classes), lambda name: self._delete(PRIORITY_CLASSES, "", name))
        for name in _names(self._case.volumes):
            await self._delete(VOLUME_CLAIMS, NAMESPACE, name)
            await self._delete(VOLUMES, "", name)
        await self._until(lambda seen: not (seen.pods or seen.nodes or seen.volumes or seen.volume_claims))

    async def _delete(self, resource: Resource, namespace: str, name: str) -> None:
        try:
            await self._client.delete(resource, namespace, name, grace_seconds=0)
        except ApiError as error:
            if not error.not_found:
                raise

    async def _until(self, holds: Callable[[ClusterSnapshot], bool]) -> ClusterSnapshot:
        nodes = len(self._case.nodes)
        async with asyncio.timeout(_TIMEOUT_SECONDS + nodes * _TIMEOUT_SECONDS_A_NODE):
            while True:
                seen = await read_cluster(self._client, 0.0, only=_SEEN)
                if holds(seen):
                    return seen
                await asyncio.sleep(_POLL_SECONDS + nodes * _POLL_SECONDS_A_NODE)


def _demand(snapshot: ClusterSnapshot, name: str, pods: int) -> Demand:
    found = snapshot.replica_sets[NAMESPACE, name]
    images = found.template.shape.images
    key = WorkloadKey("ReplicaSet", NAMESPACE, name)
    return Demand(key, found.uid, Trigger.ROLLOUT, "trial", images, found.template, (Batch(0.0, pods),))


async def _each(items: Iterable[T], do: Callable[[T], Awaitable[object]]) -> None:
    """Do something for every item, a few at a time."""
    gate = asyncio.Semaphore(_TOGETHER)

    async def one(item: T) -> None:
        async with gate:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(one(item))


def _numbers(snapshot: ClusterSnapshot, revision: str) -> tuple[int, int]:
    """Pods of a revision, and of the rival."""
    pods = snapshot.pods.values()
    return sum(pod.labels.get("rev") == revision for pod in pods), sum(p.labels.get("app") == _RIVAL for p in pods)


def _bound(snapshot: ClusterSnapshot, revision: str) -> list[Pod]:
    return [pod for pod in snapshot.pods.values() if pod.labels.get("rev") == revision and pod.node_name]


def _names(manifests: Iterable[Object]) -> list[str]:
    names = []
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert isinstance(metadata, dict)
        names.append(str(metadata["name"]))
    return names


def _service() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }


def _claim(volume: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "none",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def _rival() -> Object:
    """A workload that grows when the other one does; its pods are of another size."""
    labels: dict[str, Json] = {"app": _RIVAL}
    requests: Object = {"cpu": "500m", "memory": "256Mi"}
    container: Object = {"name": "main", "image": "example.com/rival:1", "resources": {"requests": requests}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": _RIVAL, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


def _replica_set(case: Case, revision: str, replicas: int) -> Object:
    labels: dict[str, Json] = {"app": "web", "rev": revision}
    container: Object = {
        "name": "main",
        "image": f"example.com/web:{revision}",
        "resources": {"requests": dict(case.requests), "limits": _limits(case)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": f"web-{revision}", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **case.spec},
            },
        },
    }


def _limits(case: Case) -> dict[str, Json]:
    """Extended resources need a limit equal to the request."""
    return {name: amount for name, amount in case.requests.items() if "/" in name}
