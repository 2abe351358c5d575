"""Workloads, autoscalers and nodes as planning reads them."""

import copy
import json

import pytest

from prewarm.cluster.decoding.kinds import Kind, Kinds
from prewarm.cluster.decoding.workloads import template_hash
from prewarm.model.pods import TaintEffect
from prewarm.model.workloads import Autoscaler, UpdateStrategy, Workload, WorkloadKey
from tests.support.manifests import Object, node

TEMPLATE: Object = {
    "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
    "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}]},
}


def decoded(kind: Kind[Workload], spec: Object, status: Object | None = None) -> Workload:
    metadata = {"name": "web", "namespace": "shop", "uid": "u", "generation": 3}
    raw = json.dumps({"metadata": metadata, "spec": {"template": TEMPLATE, **spec}, "status": status or {}}).encode()
    value = kind.one(raw).value
    assert value is not None
    return value


def raw(template: object) -> bytes:
    return json.dumps(template).encode()


def test_a_replica_sets_template_counts_as_equal_to_its_deployments() -> None:
    """The Deployment's controller adds a label; old servers print a null creationTimestamp; key order is no matter."""
    owned = copy.deepcopy(TEMPLATE)
    owned["metadata"]["labels"]["pod-template-hash"] = "7d9f8b6c5"
    owned["metadata"]["creationTimestamp"] = None
    assert template_hash(raw(dict(reversed(owned.items())))) == template_hash(raw(TEMPLATE))


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"containers": [{"name": "web", "image": "registry.example/web:v2"}]}},
        {"metadata": {"labels": {"app": "web", "new": "label"}, "annotations": {"a": "b"}}},
        {"metadata": {"labels": {"app": "web"}, "annotations": {"a": "restarted"}}},
    ],
)
def test_any_other_difference_is_another_revision(change: Object) -> None:
    assert template_hash(raw(TEMPLATE | change)) != template_hash(raw(TEMPLATE))


def test_a_deployment_without_strategy_has_the_apis_defaults() -> None:
    found = decoded(Kinds().deployments, {"replicas": 0, "paused": True})
    assert (found.replicas, found.paused, found.generation) == (0, True, 3)
    assert (found.strategy, found.max_surge, found.max_unavailable) == (UpdateStrategy.ROLLING_UPDATE, "25%", "25%")
    assert found.key == WorkloadKey("Deployment", "shop", "web")
    assert found.template.shape.images == ("registry.example/web:v1",)


def test_a_stateful_set_has_its_partition() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 4}}
    found = decoded(Kinds().stateful_sets, {"updateStrategy": strategy})
    assert (found.partition, found.max_unavailable, found.max_surge, found.replicas) == (4, 1, 0, 1)


def test_a_daemon_set_has_as_many_replicas_as_nodes_want_it() -> None:
    status = {"desiredNumberScheduled": 7, "updatedNumberScheduled": 3, "numberReady": 6, "numberAvailable": 5}
    found = decoded(Kinds().daemon_sets, {"updateStrategy": {"type": "OnDelete"}}, status)
    assert (found.replicas, found.updated_replicas, found.ready_replicas, found.available_replicas) == (7, 3, 6, 5)
    assert found.strategy is UpdateStrategy.ON_DELETE


def test_a_template_that_makes_no_sense_leaves_the_workload() -> None:
    kinds = Kinds()
    found = decoded(kinds.deployments, {"template": {"spec": {"containers": 7}}})
    assert found.template.shape.containers == ()
    assert kinds.problems.count == 1


def metric(kind: str, source: Object) -> Object:
    return {"type": kind, kind[0].lower() + kind[1:]: source}


@pytest.mark.parametrize(
    ("targets", "currents", "utilization"),
    [
        (
            [metric("Resource", {"name": "cpu", "target": {"averageUtilization": 50}})],
            [metric("Resource", {"name": "cpu", "current": {"averageUtilization": 75, "averageValue": "1"}})],
            1.5,
        ),
        (
            [
                metric("Resource", {"name": "cpu", "target": {"averageUtilization": 50}}),
                metric("Pods", {"metric": {"name": "requests"}, "target": {"averageValue": "100"}}),
            ],
            [
                metric("Resource", {"name": "cpu", "current": {"averageUtilization": 25}}),
                metric("Pods", {"metric": {"name": "requests"}, "current": {"averageValue": "250"}}),
            ],
            2.5,
        ),
        ([metric("External", {"metric": {"name": "q"}, "target": {"value": "10"}})], None, None),
        (
            [metric("External", {"metric": {"name": "q"}, "target": {"value": "0"}})],
            [metric("External", {"metric": {"name": "q"}, "current": {"value": "1"}}), None],
            None,
        ),
    ],
)
def test_utilization_is_the_largest_of_the_metrics(
    targets: list[Object], currents: list[Object] | None, utilization: float | None
) -> None:
    manifest = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 9, "metrics": targets},
        "status": {"currentReplicas": 3, "currentMetrics": currents},
    }
    found = Kinds().autoscalers.one(json.dumps(manifest).encode()).value
    assert isinstance(found, Autoscaler)
    assert found.target == WorkloadKey("Deployment", "shop", "web")
    assert found.utilization == utilization


def test_a_nodes_state_taints_and_images() -> None:
    manifest = node("n1")
    manifest["spec"] = {"unschedulable": True, "taints": [{"key": "a", "effect": "NoExecute"}, {"key": "b"}]}
    manifest["status"]["conditions"].append({"type": "DiskPressure", "status": "True"})
    manifest["status"]["images"] = [{"names": ["registry.example/a@sha256:0", "registry.example/a:v1"], "sizeBytes": 7}]
    manifest["status"]["nodeInfo"] = {"bootID": "boot", "operatingSystem": "windows"}
    found = Kinds().nodes.one(json.dumps(manifest).encode()).value
    assert found is not None
    assert (found.ready, found.disk_pressure, found.unschedulable, found.boot_id) == (True, True, True, "boot")
    assert [(taint.key, taint.effect) for taint in found.taints] == [("a", TaintEffect.NO_EXECUTE)]
    assert (found.allocatable.milli_cpu, found.max_pods, found.operating_system) == (4000, 110, "windows")
    assert found.images[0].size_bytes == 7


def test_a_node_that_was_not_heard_of_is_not_ready() -> None:
    manifest = node("n1")
    manifest["status"]["conditions"][0]["status"] = "Unknown"
    found = Kinds().nodes.one(json.dumps(manifest).encode()).value
    assert found is not None
    assert not found.ready
