"""The incremental store equals one made from scratch, its snapshots never change, and it says whom changes concern."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from prewarm.cluster.changes import Changes
from prewarm.cluster.store import Store
from prewarm.model.pods import (
    Affinity,
    OwnerReference,
    Pod,
    PodAffinityTerm,
    PodPhase,
    PodShape,
    Resources,
)
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage, ObjectKey
from prewarm.model.workloads import Autoscaler, Service, Workload, WorkloadKey

NAMESPACES = ("a", "b")
NODES = ("n1", "n2")
SHAPES = (
    PodShape(requests=Resources(100, 1000), scoring_milli_cpu=100, scoring_memory=1000),
    PodShape(requests=Resources(50, 10, 5, (("example.com/gpu", 1),))),
    PodShape(affinity=Affinity(required_pod_anti_affinity=(PodAffinityTerm("zone"),))),
)
namespaces = st.sampled_from(NAMESPACES)
names = st.sampled_from(("x", "y"))
Item = TypeVar("Item")
Group = TypeVar("Group", bound=Hashable)


def grouped(
    items: Mapping[ObjectKey, Item], group: Callable[[Item], Group | None]
) -> dict[Group, dict[ObjectKey, Item]]:
    groups: dict[Group, dict[ObjectKey, Item]] = defaultdict(dict)
    for key, item in items.items():
        of = group(item)
        if of is not None:
            groups[of][key] = item
    return dict(groups)


def summed(pods: Iterable[Pod]) -> NodeUsage:
    usage = NodeUsage()
    for pod in pods:
        usage = usage.plus(pod)
    return usage


class StoreMachine(RuleBasedStateMachine):
    """Puts and removes objects in any order and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.pods: dict[ObjectKey, Pod] = {}
        self.workloads: dict[ObjectKey, Workload] = {}
        self.replica_sets: dict[ObjectKey, Workload] = {}
        self.services: dict[ObjectKey, Service] = {}
        self.autoscalers: dict[ObjectKey, Autoscaler] = {}
        self.before = self.store.snapshot(0.0)
        self.earlier: list[tuple[ClusterSnapshot, ClusterSnapshot]] = []

    @rule(
        namespace=namespaces,
        name=names,
        node=st.sampled_from(("", *NODES)),
        owner=st.sampled_from((None, "x", "y")),
        phase=st.sampled_from(PodPhase),
        shape=st.sampled_from(SHAPES),
        puller=st.booleans(),
        version=st.integers(0, 3),
        listed=st.booleans(),
    )
    def put_pod(
        self,
        namespace: str,
        name: str,
        node: str,
        owner: str | None,
        phase: PodPhase,
        shape: PodShape,
        puller: bool,
        version: int,
        listed: bool,
    ) -> None:
        pod = Pod(
            namespace,
            name,
            uid=f"{namespace}-{name}",
            node_name=node,
            labels={"prewarm.dev/puller": "true"} if puller else {},
            owner=None if owner is None else OwnerReference("ReplicaSet", owner, f"rs-{namespace}-{owner}"),
            phase=phase,
            shape=shape,
            resource_version=str(version),
        )
        self.store.pods.put(pod.key, pod, listed=listed)
        known = self.pods.get(pod.key)
        if known is not None:
            earlier = version < int(known.resource_version) and not listed
            if earlier or known == _as_version(pod, known.resource_version):
                return
        self.pods[pod.key] = pod

    @rule(namespace=namespaces, name=names)
    def remove_pod(self, namespace: str, name: str) -> None:
        self.store.pods.remove((namespace, name))
        self.pods.pop((namespace, name), None)

    @rule(namespace=namespaces, name=names, owner=st.sampled_from((None, "x", "y")), replicas=st.integers(0, 2))
    def put_replica_set(self, namespace: str, name: str, owner: str | None, replicas: int) -> None:
        replica_set = Workload(
            WorkloadKey("ReplicaSet", namespace, name),
            uid=f"rs-{namespace}-{name}",
            owner=None if owner is None else OwnerReference("Deployment", owner, f"d-{namespace}-{owner}"),
            replicas=replicas,
        )
        self.store.replica_sets.put((namespace, name), replica_set)
        self.replica_sets[namespace, name] = replica_set

    @rule(namespace=namespaces, name=names)
    def remove_replica_set(self, namespace: str, name: str) -> None:
        self.store.replica_sets.remove((namespace, name))
        self.replica_sets.pop((namespace, name), None)

    @rule(namespace=namespaces, name=names, replicas=st.integers(0, 2))
    def put_deployment(self, namespace: str, name: str, replicas: int) -> None:
        workload = Workload(WorkloadKey("Deployment", namespace, name), uid=f"d-{namespace}-{name}", replicas=replicas)
        self.store.deployments.put((namespace, name), workload)
        self.workloads[namespace, name] = workload

    @rule(namespace=namespaces, name=names)
    def remove_deployment(self, namespace: str, name: str) -> None:
        self.store.deployments.remove((namespace, name))
        self.workloads.pop((namespace, name), None)

    @rule(namespace=namespaces, name=names, app=names)
    def put_service(self, namespace: str, name: str, app: str) -> None:
        service = Service(namespace, name, (("app", app),))
        self.store.services.put((namespace, name), service)
        self.services[namespace, name] = service

    @rule(namespace=namespaces, name=names)
    def remove_service(self, namespace: str, name: str) -> None:
        self.store.services.remove((namespace, name))
        self.services.pop((namespace, name), None)

    @rule(namespace=namespaces, name=names, scaled=names, replicas=st.integers(1, 2))
    def put_autoscaler(self, namespace: str, name: str, scaled: str, replicas: int) -> None:
        key = WorkloadKey("Deployment", namespace, scaled)
        autoscaler = Autoscaler(namespace, name, f"h-{namespace}-{name}", key, max_replicas=replicas)
        self.store.autoscalers.put((namespace, name), autoscaler)
        self.autoscalers[namespace, name] = autoscaler

    @rule(namespace=namespaces, name=names)
    def remove_autoscaler(self, namespace: str, name: str) -> None:
        self.store.autoscalers.remove((namespace, name))
        self.autoscalers.pop((namespace, name), None)

    @invariant()
    def equals_one_made_from_scratch(self) -> None:
        assert self.store.snapshot(0.0) == self.rebuilt()

    @invariant()
    def earlier_snapshots_stay_as_they_were(self) -> None:
        for taken, then in self.earlier:
            assert taken == then
        self.earlier = [*self.earlier[-4:], (self.store.snapshot(0.0), self.rebuilt())]

    @invariant()
    def whoever_is_concerned_is_named(self) -> None:
        now, changes = self.store.snapshot(0.0), self.store.changed()
        for namespace in NAMESPACES:
            for name in ("x", "y"):
                key = WorkloadKey("Deployment", namespace, name)
                if _concerning(now, key) != _concerning(self.before, key):
                    assert key in changes.workloads
        for node in NODES:
            if now.pods_by_node.get(node) != self.before.pods_by_node.get(node):
                assert node in changes.used_nodes
        assert self.store.changed() == Changes()
        self.before = now

    def rebuilt(self) -> ClusterSnapshot:
        def home(pod: Pod) -> str | None:
            return pod.node_name if pod.node_name and not pod.finished else None

        by_node = grouped(self.pods, home)
        rivals = grouped(self.autoscalers, lambda autoscaler: autoscaler.target)
        services = grouped(self.services, lambda service: service.namespace)
        lone = [replica_set for replica_set in self.replica_sets.values() if replica_set.owner is None]
        return ClusterSnapshot(
            pods=dict(self.pods),
            pods_by_node=by_node,
            pods_by_namespace=grouped(self.pods, lambda pod: pod.namespace),
            pods_by_owner=grouped(self.pods, lambda pod: pod.owner.uid if pod.owner else None),
            waiting_pods={
                key: pod
                for key, pod in self.pods.items()
                if not pod.node_name and not pod.finished and pod.deleted_at is None
            },
            pods_with_affinity={
                key: pod for key, pod in self.pods.items() if home(pod) and pod.shape.affinity.concerns_pods
            },
            puller_pods={key: pod for key, pod in self.pods.items() if pod.labels},
            usage={node: summed(pods.values()) for node, pods in by_node.items()},
            workloads={workload.key: workload for workload in (*self.workloads.values(), *lone)},
            deployments_by_namespace=grouped_workloads(self.workloads.values()),
            replica_sets=dict(self.replica_sets),
            replica_sets_by_owner=grouped(self.replica_sets, lambda found: found.owner.uid if found.owner else None),
            autoscalers={target: found[min(found)] for target, found in rivals.items()},
            services_by_namespace={
                namespace: tuple(found[key] for key in sorted(found)) for namespace, found in services.items()
            },
        )


def grouped_workloads(workloads: Iterable[Workload]) -> dict[str, dict[WorkloadKey, Workload]]:
    found: dict[str, dict[WorkloadKey, Workload]] = {}
    for workload in workloads:
        found.setdefault(workload.key.namespace, {})[workload.key] = workload
    return found


def _as_version(pod: Pod, version: str) -> Pod:
    return Pod(**{name: getattr(pod, name) for name in pod.__struct_fields__} | {"resource_version": version})


def _concerning(snapshot: ClusterSnapshot, key: WorkloadKey) -> object:
    """All that planning a Deployment reads about it."""
    uid = f"d-{key.namespace}-{key.name}"
    replica_sets = snapshot.replica_sets_by_owner.get(uid, {})
    return (
        snapshot.workloads.get(key),
        dict(replica_sets),
        [snapshot.pods_by_owner.get(found.uid) for found in replica_sets.values()],
        snapshot.autoscalers.get(key),
    )


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStore = StoreMachine.TestCase
