"""Reflectors, writer and Lease against a real API server, which dies and comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import Cluster, Lane
from e2e.manifests import install_definitions
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.lease import LeaderLease, LeadershipLost, LeaseTimes
from prewarm.cluster.live import read_cluster
from prewarm.cluster.mirror import Mirror
from prewarm.cluster.reflector import ReflectorOptions
from prewarm.cluster.store import Store
from prewarm.cluster.writer import WriteOutcome, Writer
from prewarm.model.intents import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    PODS,
    Apply,
    Create,
    Delete,
    Json,
    Manifest,
    RecordEvent,
)
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey

PATIENCE_SECONDS = 60.0
QUICK_LEASE = LeaseTimes(duration=3, renew_deadline=2, retry=0.2)


@pytest.fixture(scope="module", autouse=True)
def definitions(cluster: Cluster) -> None:
    install_definitions(cluster)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(Connection.load(cluster.kubeconfig, cluster.context)) as client:
        yield client


@asynccontextmanager
async def mirrored(client: Client, options: ReflectorOptions | None = None) -> AsyncIterator[Mirror]:
    mirror = Mirror(client, options=options)
    running = asyncio.create_task(mirror.run(), name="mirror")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await mirror.wait_synced()
        yield mirror
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(store: Store, condition: Callable[[ClusterSnapshot], bool]) -> ClusterSnapshot:
    """The first snapshot that meets the condition."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            store.changed()
            snapshot = store.snapshot(0.0)
            if condition(snapshot):
                return snapshot
            await store.wait_for_change()


def deployment(name: str, image: str = "registry.example/web:v1") -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": image, "resources": {"requests": {"cpu": "50m"}}}]},
            },
        },
    }


def config_map(name: str, value: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}}


def pod(name: str, **spec: Json) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}], **spec},
    }


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_rollout_shows_in_the_snapshot_as_its_workload(client: Client, namespace: str, streamed: bool) -> None:
    """The ReplicaSet's template counts as equal to the Deployment's, and pods, owner and workload find each other."""
    key = WorkloadKey("Deployment", namespace, "web")
    async with mirrored(client, ReflectorOptions(streamed=streamed)) as mirror:
        await client.create(DEPLOYMENTS, namespace, deployment("web"))

        def rolled_out(snapshot: ClusterSnapshot) -> bool:
            return len(snapshot.pods_by_namespace.get(namespace, {})) == 2 and key in snapshot.workloads

        snapshot = await until(mirror.store, rolled_out)
        workload = snapshot.workloads[key]
        (replica_set,) = snapshot.replica_sets_by_owner[workload.uid].values()
        assert replica_set.template_hash == workload.template_hash
        assert replica_set.template.labels.items() >= workload.template.labels.items()
        pods = snapshot.pods_by_owner[replica_set.uid].values()
        assert len({id(pod.shape) for pod in pods}) == 1
        assert {pod.shape.requests.milli_cpu for pod in pods} == {50}
        assert key in (await changed_workloads(client, mirror, namespace))
        counters = {reflector.name: reflector.counters for reflector in mirror.reflectors}
        assert (counters["pods"].lists, counters["pods"].errors) == (1, 0)


async def changed_workloads(client: Client, mirror: Mirror, namespace: str) -> frozenset[WorkloadKey]:
    mirror.store.changed()
    await client.merge_patch(DEPLOYMENTS, namespace, "web", {"spec": {"replicas": 3}})
    async with asyncio.timeout(PATIENCE_SECONDS):
        await mirror.store.wait_for_change()
    return mirror.store.changed().workloads


async def test_one_reading_agrees_with_the_mirror(client: Client, namespace: str) -> None:
    await client.create(DEPLOYMENTS, namespace, deployment("web"))
    async with mirrored(client) as mirror:
        await until(mirror.store, lambda snapshot: len(snapshot.pods_by_namespace.get(namespace, {})) == 2)
        read = await read_cluster(client, 0.0)
        snapshot = await until(mirror.store, lambda snapshot: snapshot.pods.keys() == read.pods.keys())
        assert snapshot.pods_by_namespace[namespace].keys() == read.pods_by_namespace[namespace].keys()
        assert snapshot.workloads.keys() == read.workloads.keys()
        assert snapshot.nodes.keys() == read.nodes.keys()


async def test_intents_are_executed_once_and_withdrawn(client: Client, namespace: str) -> None:
    writer = Writer(client)
    apply = Apply(CONFIG_MAPS, namespace, "plan", config_map("plan", "a"))
    create = Create(PODS, namespace, "puller", pod("puller", nodeName="no-such-node"))
    applied, created = await writer.execute([apply, create])
    assert (applied.outcome, created.outcome) == (WriteOutcome.APPLIED, WriteOutcome.CREATED)

    again, existed = await writer.execute([apply, create])
    assert again.resource_version == applied.resource_version
    assert existed.outcome is WriteOutcome.EXISTED

    namesake = Delete(PODS, namespace, "puller", uid="00000000-0000-4000-8000-000000000000")
    wanted = Delete(PODS, namespace, "puller", uid=created.uid, grace_seconds=0)
    results = await writer.execute([namesake, wanted, wanted])
    assert [result.outcome for result in results] == [WriteOutcome.GONE, WriteOutcome.DELETED, WriteOutcome.GONE]


async def test_refusals_come_back_in_the_servers_words(client: Client, cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "quota", "none", "--hard=pods=0", "--namespace", namespace)
    refused, invalid, lost = await Writer(client).execute(
        [
            Create(PODS, namespace, "a", pod("a")),
            Create(CONFIG_MAPS, namespace, "Not_A_Name", config_map("Not_A_Name", "x")),
            Create(CONFIG_MAPS, "no-such-namespace", "a", config_map("a", "x")),
        ]
    )
    assert (refused.outcome, refused.code) == (WriteOutcome.REFUSED, 403)
    assert "exceeded quota: none" in refused.message
    assert (invalid.outcome, invalid.reason) == (WriteOutcome.REFUSED, "Invalid")
    assert (lost.outcome, lost.reason) == (WriteOutcome.NAMESPACE_ENDS, "NotFound")


async def test_of_events_only_the_kubelets_about_images_come(client: Client, namespace: str) -> None:
    """The server filters; what comes after the last one shows that nothing else came before."""
    async with mirrored(client) as mirror:
        for number, (reason, component, kind) in enumerate(
            [
                ("Started", "kubelet", "Pod"),
                ("Unhealthy", "kubelet", "Pod"),
                ("Pulling", "default-scheduler", "Pod"),
                ("Pulling", "kubelet", "Node"),
                ("Pulling", "kubelet", "Pod"),
                ("BackOff", "kubelet", "Pod"),
            ]
        ):
            involved = {"kind": kind, "name": "web-1", "namespace": namespace, "uid": "pod-uid"}
            event: Manifest = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"event-{number}"},
                "involvedObject": involved,
                "reason": reason,
                "source": {"component": component, "host": "n1"},
            }
            await client.create(EVENTS, namespace, event)
        found: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "BackOff" not in found:
                await mirror.store.wait_for_change()
                mirror.store.changed()
                found += [event.reason for event in mirror.store.drain_events() if event.namespace == namespace]
        assert found == ["Pulling", "BackOff"]


async def test_equal_events_are_counted_up_by_the_next_instance_too(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    intent = RecordEvent(CONFIG_MAPS, namespace, "plan", "uid", "Planned", "3 nodes")
    await Writer(client).execute([intent, intent])
    (result,) = await Writer(client).execute([intent])
    assert result.outcome is WriteOutcome.RECORDED
    counts = cluster.kubectl(
        "get", "events", "--namespace", namespace, "--field-selector=reason=Planned", "-o", "jsonpath={.items[*].count}"
    )
    assert counts.strip() == "3"


async def test_of_two_candidates_one_leads_and_the_other_takes_over(client: Client, namespace: str) -> None:
    def candidate(identity: str) -> LeaderLease:
        return LeaderLease(client, namespace=namespace, name="prewarm", identity=identity, times=QUICK_LEASE)

    first, second = candidate("first"), candidate("second")
    finish = asyncio.Event()

    async def work() -> None:
        await finish.wait()

    leading = asyncio.create_task(first.run(work))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await first.leading.wait()
        waiting = asyncio.create_task(second.run(work))
        assert not second.leading.is_set()
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await second.leading.wait()
        assert not first.leading.is_set()
        finish.set()
        await waiting


@pytest.mark.usefixtures("control_plane_binaries")
async def test_a_server_without_our_kinds_that_dies_and_comes_back() -> None:
    """Readers wait for the CRDs and go on after an outage; a leader that cannot renew stops its work."""
    async with (
        ControlPlane.start(ControlPlaneOptions(kwok=False)) as plane,
        Client(Connection.load(plane.kubeconfig)) as client,
    ):
        cluster = Cluster(Lane.LOCAL, plane.kubeconfig, plane.context, plane.binaries.kubectl, plane)
        mirror = Mirror(client)
        mirroring = asyncio.create_task(mirror.run(), name="mirror")
        await everything_but_ours(mirror)
        await asyncio.to_thread(install_definitions, cluster)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await mirror.wait_synced()

        stopped = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        lease = LeaderLease(client, namespace="default", name="prewarm", identity="only", times=QUICK_LEASE)
        leading = asyncio.create_task(lease.run(work))
        await lease.leading.wait()
        plane.kill_component(Component.KUBE_APISERVER)
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(LeadershipLost):
                await leading
        assert stopped.is_set()
        await plane.start_component(Component.KUBE_APISERVER)
        await client.create(DEPLOYMENTS, "default", deployment("after"))
        key = WorkloadKey("Deployment", "default", "after")
        await until(mirror.store, lambda snapshot: key in snapshot.workloads)
        mirroring.cancel()
        await asyncio.gather(mirroring, return_exceptions=True)


async def everything_but_ours(mirror: Mirror) -> None:
    ours = {"imagecaches", "nodeimages", "prewarmpolicies"}
    async with asyncio.timeout(PATIENCE_SECONDS):
        for reflector in mirror.reflectors:
            if reflector.name not in ours:
                await reflector.synced.wait()
    assert set(mirror.missing) == ours
