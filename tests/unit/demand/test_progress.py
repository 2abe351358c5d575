import pytest

from prewarm.demand.progress import MAX_BATCHES, Bounds, Counts, Times, bounds, departing_now, rolling_batches
from tests.support.clusters import deployment, template

TEMPLATE = template("registry.test/web:v1")


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (40, "25%", "25%", Bounds(10, 10)),
        (10, "25%", "25%", Bounds(3, 2)),
        (3, "25%", "25%", Bounds(1, 0)),
        (4, 0, 0, Bounds(0, 1)),
        (4, "0%", "10%", Bounds(0, 1)),
        (4, 2, "100%", Bounds(2, 4)),
        (2, 1, 5, Bounds(1, 2)),
    ],
)
def test_surge_rounds_up_unavailable_rounds_down(
    replicas: int, surge: int | str, unavailable: int | str, expected: Bounds
) -> None:
    assert bounds(deployment(TEMPLATE, replicas=replicas, max_surge=surge, max_unavailable=unavailable)) == expected


def at_start(replicas: int, limits: Bounds) -> list[tuple[float, int]]:
    counts = Counts(replicas, 0, 0, replicas, replicas)
    return [(b.needed_at, b.pods) for b in rolling_batches(counts, limits, 0.0, Times((), (), 5.0, 25.0))]


def test_the_first_burst_is_surge_and_unavailable_then_one_by_one() -> None:
    batches = at_start(40, Bounds(10, 10))
    assert batches[:2] == [(0.0, 10), (0.0, 10)]
    assert [pods for _, pods in batches[2:]] == [1] * 20
    assert all(25.0 <= at <= 28.0 for at, _ in batches[2:])


def test_ten_replicas_start_with_three_then_two() -> None:
    assert [pods for at, pods in at_start(10, Bounds(3, 2)) if at == 0.0] == [3, 2]


def test_without_surge_a_pod_comes_only_where_one_has_gone() -> None:
    assert [pods for _, pods in at_start(3, Bounds(0, 1))] == [1, 1, 1]


def test_later_pods_wait_for_earlier_ones_with_the_image_there() -> None:
    assert [at for at, _ in at_start(4, Bounds(1, 0))] == pytest.approx([0.0, 25.0, 30.0, 35.0])


def test_old_pods_are_gone_a_moment_after_their_deletion() -> None:
    counts = Counts(2, 0, 0, 2, 2)
    batches = rolling_batches(counts, Bounds(1, 0), 0.0, Times((), (), 5.0, 25.0))
    assert [batch.leaving for batch in batches] == [0, 0]
    counts = Counts(3, 0, 0, 3, 3)
    batches = rolling_batches(counts, Bounds(1, 0), 0.0, Times((), (), 5.0, 25.0))
    assert [batch.leaving for batch in batches] == [0, 0, 1]


def test_unhealthy_old_pods_give_way_at_once() -> None:
    assert departing_now(Counts(10, 0, 0, 10, 10), Bounds(3, 2)) == 2
    assert departing_now(Counts(10, 0, 0, 10, 5), Bounds(3, 2)) == 2
    assert departing_now(Counts(10, 5, 0, 8, 5), Bounds(3, 2)) == 0
    assert departing_now(Counts(10, 5, 5, 8, 2), Bounds(3, 2)) == 5


def test_a_stuck_rollout_still_asks_for_its_pods() -> None:
    counts = Counts(4, 1, 0, 4, 0)
    batches = rolling_batches(counts, Bounds(1, 0), 0.0, Times((), (), 5.0, 25.0))
    assert sum(batch.pods for batch in batches) == 3


def test_a_huge_rollout_is_bounded_and_complete() -> None:
    batches = at_start(50_000, Bounds(1, 0))
    assert len(batches) <= MAX_BATCHES
    assert sum(pods for _, pods in batches) == 50_000
