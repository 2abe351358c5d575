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
