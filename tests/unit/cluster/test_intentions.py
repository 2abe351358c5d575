"""A changed spec is told apart from what follows from it: the former is planned without waiting for the latter."""

from msgspec.structs import replace

from prewarm.cluster.store import Store
from prewarm.model.pods import OwnerReference, Pod
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import WEB, deployment, template

KEY = (WEB.namespace, WEB.name)
LONE = WorkloadKey("ReplicaSet", WEB.namespace, WEB.name)


def touched(store: Store, workload: Workload) -> tuple[bool, bool]:
    """Whether a state of the Deployment is a change of it, and one of its spec."""
    store.deployments.put(KEY, workload)
    changes = store.changed()
    return WEB in changes.workloads, WEB in changes.intended


def test_a_new_generation_is_an_intention_and_a_status_is_not() -> None:
    store = Store()
    first = replace(deployment(template("web:v1")), generation=1)
    assert touched(store, first) == (True, True)
    assert touched(store, replace(first, observed_generation=1)) == (True, False)
    assert touched(store, replace(deployment(template("web:v2")), generation=2)) == (True, True)


def test_a_deletion_is_an_intention() -> None:
    store = Store()
    store.deployments.put(KEY, deployment(template("web:v1")))
    store.changed()
    store.deployments.remove(KEY)
    assert store.changed().intended == {WEB}
    assert not store.changed()


def test_a_replica_set_is_a_workload_until_a_deployment_adopts_it() -> None:
    store = Store()
    lone = replace(deployment(template("web:v1"), key=LONE), generation=1)
    store.replica_sets.put(KEY, lone)
    assert store.changed().intended == {LONE}
    assert store.snapshot(0.0).workloads == {LONE: lone}

    pod = Pod("shop", "web-1", "uid-1", owner=OwnerReference("ReplicaSet", "web", lone.uid))
    store.pods.put(pod.key, pod)
    assert store.changed().workloads == {LONE}

    owner = OwnerReference("Deployment", "web", "uid-owner")
    store.replica_sets.put(KEY, replace(lone, owner=owner))
    assert store.changed().workloads == {LONE, WEB}
    found = store.snapshot(0.0)
    assert not found.workloads
    assert found.replica_sets_by_owner.keys() == {owner.uid}


def test_a_replica_set_that_nothing_controls_goes_as_other_workloads_do() -> None:
    store = Store()
    store.replica_sets.put(KEY, deployment(template("web:v1"), key=LONE))
    store.changed()
    store.replica_sets.remove(KEY)
    assert store.changed().intended == {LONE}
    assert not store.snapshot(0.0).workloads
