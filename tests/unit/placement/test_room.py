"""Which nodes have room for one more pod as they are."""

from prewarm.model.pods import Pod
from prewarm.placement import cluster_arrays, with_room
from tests.support.clusters import cluster, node, shape

NODES = [node("full", cpu=1), node("half", cpu=1), node("empty", cpu=1), node("small", cpu=0)]


def bound(name: str, node_name: str, cpu: int, deleted_at: float | None = None) -> Pod:
    return Pod("shop", name, f"uid-{name}", node_name=node_name, shape=shape("x", cpu=cpu), deleted_at=deleted_at)


def test_room_is_what_pods_that_are_there_leave_of_a_node() -> None:
    found = cluster(NODES, [bound("a", "full", 600), bound("b", "half", 400)])
    assert with_room(shape("y", cpu=600), found, cluster_arrays(found)) == {"half", "empty"}


def test_a_pod_that_stops_has_its_room_until_it_is_gone() -> None:
    found = cluster(NODES, [bound("a", "empty", 600, deleted_at=1.0)])
    assert "empty" not in with_room(shape("y", cpu=600), found, cluster_arrays(found))
