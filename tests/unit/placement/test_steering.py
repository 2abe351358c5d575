"""The term that steers pods, weighed against what their template prefers (plugins/nodeaffinity)."""

import pytest
from msgspec.structs import replace

from prewarm.model.plans import Batch, Candidates
from prewarm.model.pods import Affinity, PreferredNodeTerm
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.placement import Choice, cluster_arrays, place, steerable_nodes
from tests.unit.placement.clusters import HOSTNAME, cluster, demand, node, requests


def preferring(weights: dict[str, int]) -> Affinity:
    """Preferred terms of the template's own, by value of the label `disk`."""
    return Affinity(
        preferred_node_terms=tuple(
            PreferredNodeTerm(weight, NodeSelectorTerm((Requirement("disk", Operator.IN, (value,)),)))
            for value, weight in weights.items()
        )
    )


def landing(own: dict[str, int], disks: dict[str, str], steered_to: tuple[str, ...], cpu: int = 8000) -> Candidates:
    """Where one pod lands among nodes of equal size."""
    nodes = [node(name, labels={HOSTNAME: name, "disk": disk}, cpu=cpu) for name, disk in disks.items()]
    shape = replace(requests(500, 512 * 1024**2), affinity=preferring(own))
    return place(demand(shape=shape, batches=(Batch(0.0, 1, prefers=steered_to),)), cluster(nodes))


def names(found: Candidates) -> set[str]:
    return {one.name for one in found.nodes}


def test_without_a_preference_of_its_own_a_pod_goes_where_it_is_steered() -> None:
    disks = {f"n{number}": "ssd" for number in range(30)}
    assert len(names(landing({}, disks, ()))) > 10
    assert names(landing({}, disks, ("n7",))) == {"n7"}


@pytest.mark.parametrize("weight", [2, 50, 100])
def test_what_the_template_prefers_more_wins(weight: int) -> None:
    disks = {"a": "ssd", "b": "hdd", "c": "hdd"}
    assert names(landing({"ssd": weight}, disks, ("b",))) == {"a"}


def test_among_equally_preferred_nodes_steering_decides() -> None:
    disks = {"a": "ssd", "b": "ssd", "c": "hdd"}
    assert names(landing({"ssd": 10}, disks, ("b",))) == {"b"}


def test_an_own_preference_of_weight_1_weighs_the_same() -> None:
    disks = {"a": "ssd", "b": "hdd", "c": "hdd"}
    assert names(landing({"ssd": 1}, disks, ("b",))) == {"a", "b"}


def test_a_node_without_room_is_not_reached_by_steering() -> None:
    nodes = [node("small", cpu=100), node("large")]
    found = place(demand(batches=(Batch(0.0, 1, prefers=("small",)),)), cluster(nodes))
    assert names(found) == {"large"}


def test_only_the_batches_that_are_steered_go_there() -> None:
    nodes = [node(f"n{number}") for number in range(20)]
    batches = (Batch(0.0, 1), Batch(10.0, 4, prefers=("n0", "n1", "n2", "n3")))
    found = place(demand(batches=batches), cluster(nodes))
    certain = {one.name for one in found.nodes if one.probability == 1.0}
    assert certain == {"n0", "n1", "n2", "n3"}
    assert len(found.nodes) > 5


def test_the_chosen_nodes_are_those_of_the_later_batches() -> None:
    snapshot = cluster([node(f"n{number}") for number in range(20)])
    asked = demand(batches=(Batch(0.0, 5), Batch(10.0, 5)))
    arrays = cluster_arrays(snapshot)
    everywhere = Choice(frozenset(snapshot.nodes), frozenset())
    found = steerable_nodes(asked, snapshot, 1, everywhere, seed=0, images={}, cluster=arrays)
    assert len(found.later) == 5
    assert len(found.every) == 10
    assert set(found.later) < set(found.every)
    both = steerable_nodes(asked, snapshot, 0, everywhere, seed=0, images={}, cluster=arrays)
    assert both.later == both.every == found.every


def test_nodes_that_are_liked_win_among_equals_only() -> None:
    snapshot = cluster([*(node(f"n{number}") for number in range(20)), node("tiny", cpu=600)])
    arrays = cluster_arrays(snapshot)
    asked = demand(batches=(Batch(0.0, 2),))
    liked = Choice(frozenset(snapshot.nodes), frozenset({"n4", "n9", "tiny"}))
    assert steerable_nodes(asked, snapshot, 0, liked, seed=0, images={}, cluster=arrays).later == ("n4", "n9")
