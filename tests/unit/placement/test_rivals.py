"""Two workloads that change at the same moment do not both count on the same room."""

import pytest
from msgspec.structs import replace

from prewarm.model.plans import Batch, Demand
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import in_time, place
from tests.unit.placement.clusters import cluster, demand, node, pod, requests

OTHER = WorkloadKey("Deployment", "default", "other")


def rival(*batches: Batch, cpu: int = 8000, priority: int = 0) -> Demand:
    shape = replace(requests(cpu), priority=priority)
    return replace(demand(batches=batches, shape=shape), workload=OTHER, workload_uid="uid-other")


def landing(found: Demand, *rivals: Demand, nodes: str = "abcd") -> dict[str, float]:
    landed = place(found, cluster([node(name) for name in nodes]), rivals=rivals, replays=64)
    return {one.name: one.probability for one in landed.nodes}


def test_room_that_a_rival_takes_first_is_taken() -> None:
    ours = demand(batches=(Batch(10.0, 2),), shape=requests(8000))
    assert sum(landing(ours, rival(Batch(0.0, 2))).values()) == pytest.approx(2.0)
    assert place(ours, cluster([node("a"), node("b")]), rivals=[rival(Batch(0.0, 2))]).unplaced == 2


def test_those_that_come_together_take_turns() -> None:
    ours = demand(batches=(Batch(0.0, 4),), shape=requests(8000))
    found = place(ours, cluster([node(name) for name in "abcd"]), rivals=[rival(Batch(0.1, 4))], replays=64)
    assert 1 <= found.unplaced <= 3


def test_nobody_knows_who_begins() -> None:
    """The only node that is large enough is ours in about half of the courses."""
    ours = demand(batches=(Batch(0.0, 1),), shape=requests(8000))
    found = place(ours, cluster([node("a"), node("b", cpu=4000)]), rivals=[rival(Batch(0.0, 1))], replays=200)
    (only,) = found.nodes
    assert 0.3 < only.probability < 0.7


def test_rivals_that_come_later_take_nothing() -> None:
    ours = demand(batches=(Batch(0.0, 4),), shape=requests(8000))
    assert place(ours, cluster([node(name) for name in "abcd"]), rivals=[rival(Batch(9.0, 4))]).unplaced == 0


def test_less_important_rivals_come_after_and_more_important_ones_before() -> None:
    ours = demand(batches=(Batch(0.0, 4),), shape=requests(8000))
    snapshot = cluster([node(name) for name in "abcd"])
    assert place(ours, snapshot, rivals=[rival(Batch(0.0, 4), priority=-1)]).unplaced == 0
    assert place(ours, snapshot, rivals=[rival(Batch(0.0, 3), priority=1)]).unplaced == 3


def test_the_room_of_a_rivals_old_pods_becomes_free() -> None:
    old = pod("a", name="old", shape=requests(8000))
    snapshot = cluster([node("a"), node("b")], [old])
    leaving = replace(rival(Batch(0.0, 1, leaving=1)), leaving=(old.key,), leaving_first=1)
    ours = demand(batches=(Batch(30.0, 1),), shape=requests(8000))
    assert place(ours, snapshot, rivals=[leaving]).unplaced == 0
    assert place(ours, snapshot, rivals=[rival(Batch(0.0, 1))]).unplaced == 1


def test_only_what_comes_before_the_last_pod_counts_and_no_more_than_asked_for() -> None:
    ours = demand(batches=(Batch(0.0, 2), Batch(10.0, 2)))
    other = rival(Batch(1.0, 3), Batch(9.0, 3), Batch(20.0, 3))
    assert [batch.pods for one in in_time(ours, [other], 100) for batch in one.batches] == [3, 3]
    assert [batch.pods for one in in_time(ours, [other], 4) for batch in one.batches] == [3, 1]
    assert in_time(ours, [ours], 100) == ()
    assert in_time(ours, [rival(Batch(1.0, 1, nodes=("a",)))], 100) == ()


def test_who_leaves_after_a_rivals_rest_is_chosen_as_its_pods_are_then() -> None:
    """Its first pods drive three old ones from b, though those of a are first in order; then one more may go."""
    shape = requests(1000)
    full, room = [f"a{index}" for index in range(3)], [f"b{index}" for index in range(3)]
    old = [
        replace(pod(name, name=name, shape=shape), ready_at=10.0 + rank / 1000)
        for rank, name in enumerate([*full, *room])
    ]
    nodes = [*(node(name, cpu=1000) for name in full), *(node(name, cpu=2000) for name in room)]
    steps = (
        Batch(600.0, 3, after_rest=True, at_once=0),
        Batch(1200.0, 0, leaving=3, after_rest=True, at_once=1),
        Batch(1230.0, 0, leaving=1),
    )
    canary = replace(demand(shape=shape, leaving=old, batches=steps), workload=OTHER, workload_uid="uid-other")
    found = place(demand(shape=shape, batches=(Batch(1300.0, 4),)), cluster(nodes, old), rivals=[canary])
    assert {one.name for one in found.nodes} == {"a0", *room}
