import pytest

from prewarm.planning.evidence import tempered

REPLAYS = 32


def test_equal_nodes_that_differ_by_luck_alone_are_equal() -> None:
    """Sixty draws of 32, each with two of three: what is seen of equal nodes."""
    seen = {f"n{index}": share / REPLAYS for index, share in enumerate([18, 20, 21, 22, 21, 24, 22, 23, 19, 21] * 6)}
    assert list(tempered(seen, REPLAYS).values()) == pytest.approx([21.1 / REPLAYS] * 60)


def test_nodes_that_differ_in_truth_keep_their_difference() -> None:
    seen = {f"n{index}": 1.0 if index < 20 else 0.1 for index in range(60)}
    found = tempered(seen, REPLAYS)
    assert found["n0"] >= 0.99
    assert found["n59"] == pytest.approx(0.1, abs=0.01)


def test_the_luckiest_of_uncertain_nodes_are_not_taken_for_certain() -> None:
    seen = {f"n{index}": share / REPLAYS for index, share in enumerate([30, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6])}
    found = tempered(seen, REPLAYS)
    assert found["n0"] < 30 / REPLAYS
    assert found["n11"] > 6 / REPLAYS
    assert sorted(found, key=lambda name: -found[name]) == list(seen)


@pytest.mark.parametrize("shares", [{}, {"a": 1.0}, {"a": 0.4}, {"a": 1.0, "b": 1.0}])
def test_nothing_to_compare_changes_nothing(shares: dict[str, float]) -> None:
    assert tempered(shares, REPLAYS) == pytest.approx(shares)
