"""Pods of higher priority: where less important ones go for them."""

import pytest
from msgspec.structs import replace

from prewarm.model.plans import Batch
from prewarm.model.pods import HostPort, Pod, PodShape, Taint
from prewarm.model.scheduling import DisruptionBudget, PriorityClass
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import place
from tests.unit.placement.clusters import cluster, demand, node, pod, requests
from tests.unit.placement.preemption_cases import CASES, NODE_CPU, PRIORITY, PreemptionCase, Standing

BUDGET = DisruptionBudget("default", "all", LabelSelector((("protected", "yes"),)))


def shape(cpu: int, priority: int, port: int = 0) -> PodShape:
    ports = (HostPort(port),) if port else ()
    return replace(requests(cpu * 1000), priority=priority, host_ports=ports)


def standing(name: str, one: Standing) -> Pod:
    labels = {"protected": "yes"} if one.protected else {}
    return replace(
        pod(name, labels=labels, shape=shape(one.cpu, one.priority, one.port)), started_at=float(one.started)
    )


def snapshot(case: PreemptionCase) -> ClusterSnapshot:
    nodes = [
        node(name, cpu=1000 * NODE_CPU, taints=(Taint("team"),) if name in case.tainted else ()) for name in case.nodes
    ]
    pods = [standing(name, one) for name, members in case.nodes.items() for one in members]
    found = replace(cluster(nodes, pods), taken_at=10_000.0)
    return replace(found, disruption_budgets={("default", BUDGET.name): BUDGET})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_node_is_cleared_that_the_real_scheduler_clears(case: PreemptionCase) -> None:
    coming = replace(shape(case.cpu, PRIORITY, case.port), preempts=case.preempts)
    found = place(demand(1, coming), snapshot(case))
    assert {(one.name, one.probability) for one in found.nodes} == {(name, 1.0) for name in case.fits}
    assert found.unplaced == (not case.fits)


def test_each_pod_clears_room_of_its_own() -> None:
    case = PreemptionCase("three", "", {name: (Standing(order),) for order, name in enumerate("abc")})
    found = place(demand(2, shape(NODE_CPU, PRIORITY)), snapshot(case))
    assert [(one.name, one.probability) for one in found.nodes] == [("a", 1.0), ("b", 1.0)]


def test_nodes_that_are_equally_good_to_clear_are_all_likely() -> None:
    case = PreemptionCase("equal", "", {name: (Standing(1),) for name in "abcd"})
    found = place(demand(1, shape(NODE_CPU, PRIORITY)), snapshot(case), replays=64)
    assert {one.name for one in found.nodes} == set("abcd")
    assert sum(one.probability for one in found.nodes) == pytest.approx(1.0)


def test_a_template_preempts_with_the_priority_of_its_class() -> None:
    case = PreemptionCase("class", "", {"a": (Standing(5),)})
    named = replace(shape(NODE_CPU, 0), priority_class="high")
    assert place(demand(1, named), snapshot(case)).unplaced == 1
    known = replace(snapshot(case), priority_classes={"high": PriorityClass("high", 10)})
    assert [one.name for one in place(demand(1, named), known).nodes] == ["a"]


def test_old_pods_that_leave_are_no_victims() -> None:
    """They make room in their time; until then somebody less important goes for the new pod."""
    old, low = (pod(name, name=name, shape=shape(NODE_CPU, priority)) for name, priority in (("a", 50), ("b", 60)))
    nodes = [node(name, cpu=1000 * NODE_CPU) for name in "ab"]
    coming = demand(batches=(Batch(0.0, 1),), shape=shape(NODE_CPU, PRIORITY), leaving=[old])
    assert [one.name for one in place(coming, cluster(nodes, [old, low])).nodes] == ["b"]


def test_waiting_pods_of_lower_priority_come_after() -> None:
    waiting = pod(shape=shape(NODE_CPU, 1))
    found = place(demand(1, shape(NODE_CPU, PRIORITY)), cluster([node("a", cpu=1000 * NODE_CPU)], [waiting]))
    assert [(one.name, one.probability) for one in found.nodes] == [("a", 1.0)]


def test_a_more_important_waiting_pod_clears_a_node_first() -> None:
    waiting = pod(shape=shape(NODE_CPU, PRIORITY + 1))
    nodes = [node(name, cpu=1000 * NODE_CPU) for name in "ab"]
    low = [pod("a", shape=shape(NODE_CPU, 1)), pod("b", shape=shape(NODE_CPU, 2))]
    found = place(demand(1, shape(NODE_CPU, PRIORITY)), cluster(nodes, [waiting, *low]))
    assert [one.name for one in found.nodes] == ["b"]
