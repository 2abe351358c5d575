from collections.abc import Callable

import pytest
from msgspec.structs import replace

from prewarm.model.plans import Batch
from prewarm.model.pods import Pod
from prewarm.placement import place
from tests.unit.placement.clusters import cluster, demand, node, pod, requests

OLD = 40
GO = 10


def freed(seconds: Callable[[int], float]) -> dict[int, float]:
    """Probability by rank among old pods that a new pod lands on the node of one, where ten go and ten come.

    Each fills its node, so that new pods land where old ones left; `seconds` gives when each became ready.
    """
    shape = requests(6000)
    names = [f"n{index:02d}" for index in range(OLD)]
    old: list[Pod] = [
        replace(pod(name, name=name, shape=shape), ready_at=10.0 + seconds(rank)) for rank, name in enumerate(names)
    ]
    coming = demand(
        shape=shape, leaving=old, leaving_first=GO, batches=(Batch(600.0, GO, leaving=GO), Batch(6000.0, 0))
    )
    found = place(coming, cluster([node(name) for name in names], old))
    by_name = {one.name: one.probability for one in found.nodes}
    return {rank: by_name.get(name, 0.0) for rank, name in enumerate(names)}


def of_the_lower_half(chances: dict[int, float]) -> float:
    return sum(chance for rank, chance in chances.items() if rank < OLD / 2) / sum(chances.values())


def test_pods_that_became_ready_in_seconds_of_their_own_leave_in_order() -> None:
    assert freed(lambda rank: rank / 1000) == {rank: float(rank < GO) for rank in range(OLD)}


def test_pods_of_one_second_leave_in_any_order() -> None:
    assert of_the_lower_half(freed(lambda _: 0.0)) == pytest.approx(0.5, abs=0.15)


def test_the_fewer_pods_share_a_second_the_more_is_left_of_the_order() -> None:
    """Sorted by Go, 82 % of the first ten are of the lower half with two seconds, 94 % with three."""
    assert of_the_lower_half(freed(lambda rank: rank * 7 % 2)) == pytest.approx(0.82, abs=0.12)
    assert of_the_lower_half(freed(lambda rank: rank * 7 % 3)) == pytest.approx(0.94, abs=0.08)
    assert of_the_lower_half(freed(lambda rank: rank * 7 % 10)) >= 0.97


def chances(*batches: Batch, roomy: int = 3) -> dict[str, float]:
    """Full nodes a0 to a2 and some with room for one pod more, b0 and on; an old pod on each, those of a go first."""
    shape = requests(1000)
    full, room = [f"a{index}" for index in range(3)], [f"b{index}" for index in range(roomy)]
    old = [
        replace(pod(name, name=name, shape=shape), ready_at=10.0 + rank / 1000)
        for rank, name in enumerate([*full, *room])
    ]
    nodes = [*(node(name, cpu=1000) for name in full), *(node(name, cpu=2000) for name in room)]
    found = place(demand(shape=shape, leaving=old, batches=batches), cluster(nodes, old))
    return {one.name: one.probability for one in found.nodes}


def test_after_a_rest_as_many_have_gone_as_the_step_before_let_go() -> None:
    """A canary's pause: new pods drove the old ones from their nodes, and nobody else went."""
    first = Batch(600.0, 3, after_rest=True, at_once=0)
    assert chances(first, Batch(1200.0, 3, leaving=3, after_rest=True)) == {"b0": 1.0, "b1": 1.0, "b2": 1.0}
    without_rest = chances(Batch(600.0, 3, at_once=0), Batch(1200.0, 3, leaving=3))
    assert set(without_rest) > {"b0", "b1", "b2"}


def test_those_that_go_at_once_are_chosen_before_new_pods_have_nodes() -> None:
    first = Batch(600.0, 3, after_rest=True, at_once=3)
    assert chances(first, Batch(1200.0, 3, leaving=3, after_rest=True)) == dict.fromkeys(
        ["a0", "a1", "a2", "b0", "b1", "b2"], 1.0
    )


def test_those_that_go_with_a_step_leave_no_room_to_its_own_pods() -> None:
    step = (Batch(600.0, 3, after_rest=True, at_once=3), Batch(600.0, 3))
    assert chances(*step, roomy=6) == {f"b{index}": 1.0 for index in range(6)}


def stopping(*batches: Batch, leaving_first: int = 0) -> dict[str, float]:
    """Chances where ten old pods fill their nodes, which have an order, and one of the nodes is worth most."""
    shape = requests(1000)
    names = [f"n{index}" for index in range(10)]
    old = [replace(pod(name, name=name, shape=shape), ready_at=10.0 + rank / 1000) for rank, name in enumerate(names)]
    filler = pod("n9", name="filler", shape=requests(7000))
    nodes = [*(node(name, cpu=1000) for name in names[:-1]), node("n9", cpu=8000)]
    coming = demand(shape=shape, leaving=old, batches=batches, leaving_first=leaving_first)
    found = place(coming, cluster(nodes, [*old, filler]), replays=128)
    return {one.name: one.probability for one in found.nodes}


def test_a_pod_without_room_takes_the_first_that_is_left_whichever_is_best() -> None:
    """Those that are told at once stop in any order, and the scheduler tries again as soon as one has."""
    found = stopping(Batch(600.0, 3, after_rest=True, at_once=10))
    assert len(found) == 10
    assert all(chance == pytest.approx(0.3, abs=0.15) for chance in found.values())


def test_those_that_were_told_before_leave_their_room_first() -> None:
    found = stopping(Batch(600.0, 3, leaving=3, after_rest=True, at_once=7), leaving_first=3)
    assert found == {"n0": 1.0, "n1": 1.0, "n2": 1.0}


def test_old_pods_that_nothing_lets_go_stay_though_new_ones_find_no_room() -> None:
    """With maxUnavailable 0 an old pod goes when a new one is available, not before."""
    shape = requests(1000)
    old = [pod(name, name=name, shape=shape) for name in ("n0", "n1")]
    coming = demand(shape=shape, leaving=old, batches=(Batch(600.0, 2),))
    found = place(coming, cluster([node(name, cpu=1000) for name in ("n0", "n1")], old))
    assert found.nodes == ()
    assert found.unplaced == 2
