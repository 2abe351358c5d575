"""Demands whose nodes are certain, and pods that are replaced in order."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.plans import RejectReason, SkipReason
from prewarm.model.pods import OwnerReference, Pod, PodPhase, PodTemplate, Resources, Taint
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.planning import plan
from tests.support.clusters import cluster, deployment, node, template

V1 = template("registry.test/app:v1", name="app")
V2 = template("registry.test/app:v2", name="app")


def workload(kind: str, replicas: int) -> Workload:
    key = WorkloadKey(kind, "shop", "app")
    return deployment(V2, replicas=replicas, key=key, max_surge=0, max_unavailable=1, generation=2)


def pod(kind: str, number: int, on: str, pod_template: PodTemplate = V1) -> Pod:
    return Pod(
        "shop",
        f"app-{number}",
        f"uid-{number}",
        node_name=on,
        labels=pod_template.labels,
        owner=OwnerReference(kind, "app", "uid-app"),
        shape=pod_template.shape,
        phase=PodPhase.RUNNING,
        created_at=100.0,
        ready_at=105.0,
    )


def test_every_node_of_a_daemon_set_is_pulled_on_and_no_other() -> None:
    nodes = [node(f"n{number}") for number in range(6)]
    pods = [pod("DaemonSet", number, f"n{number}") for number in range(4)]
    entry = plan(cluster(nodes, pods, [workload("DaemonSet", 4)]), History()).demands[0]
    assert [planned.name for planned in entry.nodes] == ["n0", "n1", "n2", "n3"]
    assert entry.candidates.predictability == 1.0


def test_a_node_of_a_daemon_set_that_takes_no_pull_is_skipped_with_its_reason() -> None:
    nodes = [node("n0"), replace(node("n1"), disk_pressure=True)]
    pods = [pod("DaemonSet", number, f"n{number}") for number in range(2)]
    entry = plan(cluster(nodes, pods, [workload("DaemonSet", 2)]), History()).demands[0]
    assert [planned.name for planned in entry.nodes] == ["n0"]
    assert [(skip.node, skip.reason) for skip in entry.skips] == [("n1", SkipReason.NODE_DISK_PRESSURE)]


@pytest.mark.parametrize("full", ["n0", "n1"])
def test_the_successor_of_a_stateful_sets_pod_takes_the_room_that_it_left(full: str) -> None:
    """Nodes have room for one pod each: the pod with the highest ordinal goes first, and comes back to its node."""
    nodes = [node(name, cpu=1) for name in ("n0", "n1")]
    big = template("registry.test/app:v2", name="app", cpu=900)
    pods = [pod("StatefulSet", number, f"n{number}", replace(big, shape=big.shape)) for number in range(2)]
    old = [replace(found, shape=template("registry.test/app:v1", cpu=900).shape) for found in pods]
    found = replace(workload("StatefulSet", 2), template=big, template_hash="v2")
    entry = plan(cluster(nodes, old, [found]), History()).demands[0]
    assert full in {candidate.name for candidate in entry.candidates.nodes}
    assert entry.candidates.unplaced == 0
    assert entry.demand.leaving == (("shop", "app-1"), ("shop", "app-0"))


def by(pod_template: PodTemplate, **fields: Any) -> PodTemplate:
    return replace(pod_template, shape=replace(pod_template.shape, **fields))


def announced_with(**fields: Any) -> Workload:
    return deployment(by(V2, **fields), replicas=2, paused=True)


def test_where_another_scheduler_may_choose_nothing_is_guessed() -> None:
    nodes = [node(f"n{number}", cpu=8 + 8 * number) for number in range(3)]
    entry = plan(cluster(nodes, workloads=[announced_with(scheduler_name="volcano")]), History()).demands[0]
    assert not entry.nodes
    assert {skip.reason for skip in entry.skips} == {SkipReason.UNPREDICTABLE}
    assert {one.name for one in entry.candidates.nodes} == {"n0", "n1", "n2"}


def test_where_another_scheduler_has_no_choice_its_node_is_warmed() -> None:
    nodes = [node(f"n{number}") for number in range(3)]
    one_node = {"node_selector": (("kubernetes.io/hostname", "n1"),)}
    workload = announced_with(scheduler_name="volcano", **one_node)
    entry = plan(cluster(nodes, workloads=[workload]), History()).demands[0]
    assert [planned.name for planned in entry.nodes] == ["n1"]


def test_a_template_that_names_its_node_passes_the_scheduler_by() -> None:
    full = node("n1", cpu=0, taints=(Taint("team", "ml"),))
    entry = plan(cluster([node("n0"), full], workloads=[announced_with(node_name="n1")]), History()).demands[0]
    assert [planned.name for planned in entry.nodes] == ["n1"]
    assert dict(entry.candidates.rejected) == {RejectReason.NODE_NAME: 1}


def test_pods_behind_scheduling_gates_compete_for_nothing() -> None:
    waiting = replace(pod("DaemonSet", 0, ""), owner=None, phase=PodPhase.PENDING, shape=by(V1, gated=True).shape)
    large = replace(waiting, shape=replace(waiting.shape, requests=Resources(7900)))
    nodes = [node("n0"), node("n1", cpu=2)]
    workloads = [announced_with()]
    free = plan(cluster(nodes, workloads=workloads), History()).demands[0]
    assert plan(cluster(nodes, [large], workloads), History()).demands[0].candidates == free.candidates
