"""Nodes that an autoscaler would add: of which groups, how many pods each takes, and which are starting up."""

from msgspec.structs import replace

from prewarm.model.nodes import Node
from prewarm.model.pods import OwnerReference, Pod, Taint
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import JOINING_SECONDS, new_nodes
from tests.unit.placement.clusters import HOSTNAME, cluster, demand, node, pod, requests

POOL = "karpenter.sh/nodepool"
NOW = 100_000.0
STARTING = Taint("node.example.com/agent-not-ready")


def member(name: str, group: str = "general", *, cpu: int = 8000, age: float = 50_000.0, **more: object) -> Node:
    found = node(name, labels={HOSTNAME: name, POOL: group}, cpu=cpu)
    return replace(found, created_at=NOW - age, **more)


def snapshot(*nodes: Node, pods: tuple[Pod, ...] = ()) -> ClusterSnapshot:
    return replace(cluster(nodes, pods), taken_at=NOW)


def full(name: str) -> Pod:
    return pod(name, shape=requests(8000))


def test_groups_whose_nodes_would_take_the_pods_are_named() -> None:
    small = member("c", "small", cpu=1000)
    tainted = member("d", "tainted", taints=(Taint("team"),))
    found = new_nodes(demand(5, requests(3000)), snapshot(member("a"), small, tainted, pods=(full("a"),)), 5)
    assert [(one.label, one.group, one.pods_each, one.nodes, one.starting) for one in found] == [
        (POOL, "general", 2, 3, ())
    ]


def test_pods_that_run_on_every_node_take_their_part_of_a_new_one() -> None:
    daemon = replace(pod("a", shape=requests(3000)), owner=OwnerReference("DaemonSet", "agent", "uid"))
    (found,) = new_nodes(demand(4, requests(2500)), snapshot(member("a"), pods=(daemon, full("a"))), 4)
    assert found.pods_each == 2


def test_nodes_that_start_up_are_named_with_their_group() -> None:
    ready, other = member("a"), member("b", "other")
    starting = member("c", age=20.0, taints=(STARTING,))
    booting = member("d", age=5.0, ready=False)
    long_gone = member("e", age=JOINING_SECONDS + 1, taints=(STARTING,))
    general, second = new_nodes(demand(3, requests(8000)), snapshot(ready, other, starting, booting, long_gone), 3)
    assert general.starting == ("c", "d")
    assert (second.group, second.starting) == ("other", ())


def test_a_cordoned_or_busy_member_still_shows_what_a_new_one_would_be() -> None:
    assert new_nodes(demand(1), snapshot(member("a", unschedulable=True)), 1)


def test_nodes_without_a_group_promise_nothing() -> None:
    assert new_nodes(demand(1, requests(500)), snapshot(replace(node("a"), created_at=NOW)), 1) == ()
