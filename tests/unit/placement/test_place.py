"""What planning relies on: probabilities, order, rejected counts, and that the cluster's own changes are followed."""

import msgspec
import pytest

from prewarm.model.plans import Batch, RejectReason
from prewarm.model.pods import Affinity, PodAffinityTerm, PodShape
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import ExpectedImage, place
from prewarm.placement.cluster_arrays import cluster_arrays
from prewarm.placement.sampling import nodes_to_find
from tests.unit.placement.clusters import HOSTNAME, MIB, cluster, demand, node, pod, replica_set, requests


def nodes(number: int, **more: int) -> ClusterSnapshot:
    return cluster([node(f"node-{index:03d}", **more) for index in range(number)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "found"), [(1, 1), (99, 99), (100, 100), (300, 144), (1000, 420), (5000, 500), (20000, 1000)]
)
def test_sampling_ends_where_the_scheduler_ends(number: int, found: int) -> None:
    assert nodes_to_find(number) == found


def test_of_nodes_named_one_by_one_a_share_of_these_is_scored() -> None:
    """The scheduler counts those that its other filters are asked about (findNodesThatPassFilters): 144 of 300."""
    names = tuple(f"node-{index:04d}" for index in range(1000))
    snapshot = cluster([node(name, cpu=64_000 if name == names[0] else 8_000) for name in names])
    listed = NodeSelectorTerm(match_fields=(Requirement("metadata.name", Operator.IN, names[:300]),))
    shape = msgspec.structs.replace(requests(500), affinity=Affinity(required_node_terms=(listed,)))
    found = {n.name: n.probability for n in place(demand(1, shape), snapshot, replays=200).nodes}
    assert found[names[0]] == pytest.approx(144 / 300, abs=0.12)
    everywhere = {n.name: n.probability for n in place(demand(1, requests(500)), snapshot, replays=200).nodes}
    assert everywhere[names[0]] == pytest.approx(420 / 1000, abs=0.12)


def test_the_emptiest_nodes_are_certain() -> None:
    snapshot = cluster(
        [node(name) for name in "abcd"], [pod(name, shape=requests(6000, 20000 * MIB)) for name in ("c", "d")]
    )
    found = place(demand(2), snapshot)
    assert [(n.name, n.probability) for n in found.nodes] == [("a", 1.0), ("b", 1.0)]
    assert found.predictability == 1.0
    assert found.unplaced == 0


def test_our_own_pullers_are_gone_when_the_pods_come() -> None:
    """Else a node that is being warmed for these pods would look worse for that alone, and lose a tie of scores."""
    puller, ours = pod("a", shape=requests(500, 512 * MIB)), requests(500, 512 * MIB)
    snapshot = cluster([node("a"), node("b")], [puller])
    assert [n.name for n in place(demand(1, ours), snapshot).nodes] == ["b"]
    known = msgspec.structs.replace(snapshot, puller_pods={puller.key: puller})
    assert [n.name for n in place(demand(1, ours), known).nodes] == ["a", "b"]


def test_equal_nodes_share_the_probability_and_predictability_says_so() -> None:
    found = place(demand(1), nodes(20), replays=200)
    assert sum(n.probability for n in found.nodes) == pytest.approx(1.0)
    assert max(n.probability for n in found.nodes) < 0.2
    assert found.predictability < 0.2


def test_every_pod_takes_its_room() -> None:
    found = place(demand(5, requests(5000)), nodes(3))
    assert len(found.nodes) == 3
    assert found.unplaced == 2


def test_no_node_and_no_pod_give_no_candidates() -> None:
    assert place(demand(3), cluster([])).unplaced == 3
    assert place(demand(0), nodes(3)).nodes == ()


def test_rejected_nodes_are_counted_by_reason_and_are_no_candidates() -> None:
    snapshot = cluster([node("a"), node("b", unschedulable=True), node("c", cpu=100), node("d", cpu=100)])
    found = place(demand(2), snapshot)
    assert dict(found.rejected) == {RejectReason.NODE_UNSCHEDULABLE: 1, RejectReason.INSUFFICIENT_CPU: 2}
    assert [n.name for n in found.nodes] == ["a"]


def test_leaving_pods_make_room_for_those_that_come_after() -> None:
    shape = requests(6000)
    old = [pod(name, labels={"app": "web"}, shape=shape) for name in "ab"]
    snapshot = cluster([node(name) for name in "ab"], old)
    stuck = place(demand(2, shape), snapshot)
    assert (stuck.unplaced, stuck.nodes) == (2, ())
    assert dict(stuck.rejected) == {RejectReason.INSUFFICIENT_CPU: 2}
    freed = place(demand(1, shape, leaving=old[:1], leaving_first=1), snapshot)
    assert [n.name for n in freed.nodes] == ["a"]
    gradually = demand(
        shape=shape, leaving=old, leaving_first=1, batches=(Batch(0.0, 1, leaving=1), Batch(30.0, 1, leaving=1))
    )
    assert [n.name for n in place(gradually, snapshot).nodes] == ["a", "b"]


def test_a_waiting_pod_of_the_workload_drives_old_ones_from_its_node() -> None:
    to_b = msgspec.structs.replace(requests(1000), node_selector=((HOSTNAME, "b"),))
    sets = [replica_set(f"web-{n}", {"pod-template-hash": n}, template_hash=f"r{n}") for n in "12"]
    old = [pod(name, shape=requests(5000), owner=sets[0], created_at=index) for index, name in enumerate("cab")]
    filler = [pod(name, shape=requests(2500)) for name in "ac"]
    waiting = pod(shape=to_b, labels={"pod-template-hash": "2"}, owner=sets[1])
    # Only b without its old pod has room for the pod to come.
    snapshot = cluster([node(name) for name in "abc"], [*old, *filler, waiting], replica_sets=sets)
    coming = demand(shape=requests(6000), leaving=old, leaving_first=1, batches=(Batch(0.0, 0), Batch(30.0, 1, 2)))
    assert [found.name for found in place(coming, snapshot).nodes] == ["b"]


def test_a_rollout_without_room_goes_on_as_old_pods_leave() -> None:
    shape = requests(6000)
    old = [pod(name, labels={"app": "web"}, shape=shape) for name in "ab"]
    found = place(demand(2, shape, leaving=old, leaving_first=1), cluster([node(name) for name in "ab"], old))
    assert found.unplaced == 0
    assert [n.name for n in found.nodes] == ["a", "b"]


def test_a_new_revision_spreads_on_its_own() -> None:
    labels = {"app": "web", "pod-template-hash": "1"}
    old_set = replica_set("web-1", labels, template_hash="r1")
    old = [pod("a", labels=labels, owner=old_set), pod("b", labels=labels, owner=old_set)]
    snapshot = cluster([node(name) for name in "abc"], old, replica_sets=[old_set])
    assert place(demand(3), snapshot).predictability == 1.0
    assert {n.name for n in place(demand(3), snapshot).nodes} == {"a", "b", "c"}


def test_a_scale_out_avoids_nodes_that_run_the_revision() -> None:
    labels = {"app": "web", "pod-template-hash": "2"}
    current = replica_set("web-2", labels, template_hash="r2")
    running = [pod("a", labels=labels, owner=current), pod("b", labels=labels, owner=current)]
    snapshot = cluster([node(name) for name in "abcd"], running, replica_sets=[current])
    assert {n.name for n in place(demand(2), snapshot).nodes} == {"c", "d"}


def test_own_anti_affinity_keeps_the_new_pods_apart() -> None:
    apart = Affinity(required_pod_anti_affinity=(PodAffinityTerm(HOSTNAME, LabelSelector((("app", "web"),))),))
    shape = PodShape(affinity=apart)
    old = pod("a", labels={"app": "web"}, shape=shape)
    found = place(demand(3, shape), cluster([node(name) for name in "abc"], [old]))
    assert ([n.name for n in found.nodes], found.unplaced) == (["b", "c"], 1)


def test_anti_affinity_within_a_revision_lets_new_pods_join_old_ones() -> None:
    own_kind = PodAffinityTerm(HOSTNAME, LabelSelector((("app", "web"),)), match_label_keys=("pod-template-hash",))
    shape = PodShape(affinity=Affinity(required_pod_anti_affinity=(own_kind,)))
    labels = {"app": "web", "pod-template-hash": "1"}
    old_set = replica_set("web-1", labels, template_hash="r1")
    old = [pod(name, labels=labels, owner=old_set) for name in "ab"]
    snapshot = cluster([node(name) for name in "ab"], old, replica_sets=[old_set])
    found = place(demand(3, shape), snapshot)
    assert ([n.name for n in found.nodes], found.unplaced) == (["a", "b"], 1)


def test_waiting_pods_of_no_lower_priority_take_room_first() -> None:
    shape = requests(6000)
    snapshot = cluster([node("a"), node("b")], [pod(shape=shape), pod(shape=shape, labels={"x": "y"})])
    assert place(demand(1, shape), snapshot).unplaced == 1
    important = PodShape(requests=shape.requests, priority=10)
    assert place(demand(1, important), snapshot).unplaced == 0


def test_images_that_will_be_there_attract_pods() -> None:
    snapshot = cluster([node(name) for name in "abcd"])
    expected = {"example.test/web:2": ExpectedImage(2000 * MIB, frozenset({"c"}))}
    assert [n.name for n in place(demand(1), snapshot, images=expected).nodes] == ["c"]


def test_pods_that_landed_bring_their_image_along() -> None:
    size = {"example.test/web:2": ExpectedImage(4000 * MIB)}
    unlabelled = cluster([node(name, labels={}) for name in "abcdef"])
    soon = place(demand(batches=(Batch(0.0, 1), Batch(1.0, 1))), unlabelled, images=size)
    later = place(demand(batches=(Batch(0.0, 1), Batch(60.0, 1))), unlabelled, images=size)
    assert sum(n.probability for n in soon.nodes) == pytest.approx(2)
    assert sum(n.probability for n in later.nodes) == pytest.approx(1)


def test_arrays_may_be_shared_between_demands() -> None:
    snapshot = nodes(5)
    arrays = cluster_arrays(snapshot)
    assert place(demand(2), snapshot, cluster=arrays) == place(demand(2), snapshot)


def test_snapshots_that_share_their_nodes_differ_in_what_pods_take() -> None:
    first = cluster([node(name) for name in "ab"], [pod("a", shape=requests(4000))])
    second = msgspec.structs.replace(cluster([], [pod("b", shape=requests(4000))]), nodes=first.nodes)
    assert [n.name for n in place(demand(1), first).nodes] == ["b"]
    assert [n.name for n in place(demand(1), second).nodes] == ["a"]


def test_more_nodes_than_are_scored_still_place_every_pod() -> None:
    found = place(demand(30), nodes(250))
    assert found.unplaced == 0
    assert sum(n.probability for n in found.nodes) == pytest.approx(30)
