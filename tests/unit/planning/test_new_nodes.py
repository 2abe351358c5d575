"""Pods that fit nowhere: the plan names the nodes that would take them, and warms those that are starting up."""

from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.nodes import Node
from prewarm.model.plans import Batch, DemandPlan
from prewarm.model.pods import Pod, Taint
from prewarm.placement import cluster_arrays
from prewarm.planning.demand_plan import plan_demand
from prewarm.planning.underway import Done
from prewarm.presence import warmth
from tests.unit.placement.clusters import HOSTNAME, cluster, demand, node, pod, replica_set, requests

POOL = "karpenter.sh/nodepool"
NOW = 100_000.0


def member(name: str, *, age: float, taints: tuple[Taint, ...] = ()) -> Node:
    return replace(node(name, labels={HOSTNAME: name, POOL: "general"}, taints=taints), created_at=NOW - age)


def planned(nodes: list[Node], pods: list[Pod], coming: int = 3) -> DemandPlan:
    snapshot = replace(cluster(nodes, pods), taken_at=NOW)
    wanted = demand(batches=(Batch(NOW + 60.0, coming),), shape=requests(8000))
    return plan_demand(
        wanted,
        Policy(),
        snapshot,
        warmth(snapshot),
        History(),
        cluster=cluster_arrays(snapshot),
        pulls=Done(snapshot),
        seed=0,
    )


def full(name: str) -> Pod:
    return pod(name, shape=requests(8000))


def test_the_plan_expects_nodes_of_the_group_that_would_take_the_pods() -> None:
    found = planned([member("a", age=9999)], [full("a")])
    assert [(one.group, one.nodes, one.pods_each) for one in found.new_nodes] == [("general", 3, 1)]
    assert found.nodes == ()


def test_a_node_that_starts_up_is_warmed_before_it_takes_pods() -> None:
    starting = member("b", age=3, taints=(Taint("node.example.com/agent-not-ready"),))
    found = planned([member("a", age=9999), starting], [full("a")])
    assert [(one.name, one.probability, bool(one.missing)) for one in found.nodes] == [("b", 1.0, True)]


def test_no_more_nodes_are_warmed_than_the_pods_need() -> None:
    taint = Taint("node.example.com/agent-not-ready")
    starting = [member(name, age=3, taints=(taint,)) for name in "bcd"]
    found = planned([member("a", age=9999), *starting], [full("a")], coming=2)
    assert len(found.nodes) == 2


def test_nothing_is_expected_while_there_is_room() -> None:
    found = planned([member(name, age=9999) for name in "abcd"], [full("a")])
    assert found.new_nodes == ()


def test_a_pod_that_the_scheduler_gave_up_on_waits_for_a_new_node() -> None:
    """Its rollout goes on as old pods leave, so the pods to come fit; it does not."""
    starting = member("b", age=3, taints=(Taint("node.example.com/agent-not-ready"),))
    snapshot = replace(cluster([member("a", age=9999), starting], [full("a")]), taken_at=NOW)
    new = replica_set("web-new", {"app": "web"}, template_hash="r2")
    waiting = replace(
        pod(shape=requests(8000), owner=new, labels={"app": "web"}, created_at=NOW - 1), unschedulable=True
    )
    snapshot = replace(
        snapshot,
        pods={**snapshot.pods, waiting.key: waiting},
        pods_by_owner={new.uid: {waiting.key: waiting}},
        replica_sets={("default", "web-new"): new},
        replica_sets_by_owner={"uid-web": {("default", "web-new"): new}},
        waiting_pods={waiting.key: waiting},
    )
    found = plan_demand(
        demand(batches=(Batch(NOW + 60.0, 1),), shape=requests(8000)),
        Policy(),
        snapshot,
        warmth(snapshot),
        History(),
        cluster=cluster_arrays(snapshot),
        pulls=Done(snapshot),
        seed=0,
    )
    assert [(one.name, bool(one.missing)) for one in found.nodes] == [("b", True)]
