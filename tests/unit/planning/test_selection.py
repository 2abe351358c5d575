import pytest
from msgspec.structs import replace

from prewarm.model.nodes import NodeState
from prewarm.model.plans import SkipReason
from prewarm.planning.selection import (
    OBSTACLES,
    TWO_IN_VAIN,
    Limits,
    Prospect,
    is_unpredictable,
    new_nodes_allowed,
    select,
)

MISSING = ("a:1",)


def prospects(*probabilities: float) -> list[Prospect]:
    return [Prospect(f"n{i}", p, MISSING, certain=p, vain=1 - p) for i, p in enumerate(probabilities)]


def test_the_likeliest_nodes_are_taken_until_coverage_is_reached() -> None:
    found = select(prospects(1.0, 0.4, 0.4, 0.2), Limits(0.7, 10))
    assert found.chosen == {"n0", "n1"}
    assert found.reasons == {"n2": SkipReason.BEYOND_COVERAGE, "n3": SkipReason.BEYOND_COVERAGE}


def test_a_likely_node_is_taken_beyond_coverage() -> None:
    assert select(prospects(1.0, 1.0, 0.5), Limits(0.5, 10)).chosen == {"n0", "n1", "n2"}


def test_never_more_than_allowed() -> None:
    found = select(prospects(1.0, 1.0, 1.0), Limits(1.0, 2))
    assert found.chosen == {"n0", "n1"}
    assert found.reasons == {"n2": SkipReason.BEYOND_OVERPROVISION}


def test_uncertain_nodes_are_taken_as_long_as_few_pulls_are_in_vain() -> None:
    """Of twenty-odd pulls two may be in vain: the certain ones pay for that."""
    found = select(prospects(*[1.0] * 19, 0.4, 0.4, 0.4, 0.4), Limits(1.0, 30, waste=0.1))
    assert found.chosen == {f"n{i}" for i in range(22)}
    assert found.reasons == {"n22": SkipReason.BEYOND_WASTE}


def test_nodes_that_are_better_known_later_wait_unless_they_need_no_pull() -> None:
    sure, later = prospects(1.0, 0.9)
    later = replace(later, awaited=True)
    present = Prospect("warm", 0.9, (), awaited=True)
    cordoned = Prospect("cordoned", 0.9, MISSING, obstacle=NodeState.CORDONED, awaited=True)
    found = select([sure, later, present, cordoned], Limits(1.0, 10))
    assert found.chosen == {"n0", "warm"}
    assert found.reasons == {
        "n1": SkipReason.UNSETTLED,
        "warm": SkipReason.ALREADY_PRESENT,
        "cordoned": SkipReason.NODE_CORDONED,
    }
    held_back = select([later], Limits(1.0, 10), withheld=SkipReason.CANARY_UNPROVEN)
    assert held_back.reasons == {"n1": SkipReason.CANARY_UNPROVEN}


def test_both_nodes_of_a_toss_are_taken_unless_no_waste_at_all_is_accepted() -> None:
    toss = prospects(1.0, 1.0, 0.5, 0.5)
    assert select(toss, Limits(1.0, 10, waste=0.1)).chosen == {"n0", "n1", "n2", "n3"}
    assert select(toss, Limits(1.0, 10, waste=0.0)).chosen == {"n0", "n1"}


def test_earlier_pulls_count_towards_the_waste() -> None:
    used = [Prospect(f"used{i}", 0.0, (), ours=True) for i in range(9)]
    idle = [Prospect(f"idle{i}", 0.0, (), ours=True, vain=1.0) for i in range(9)]
    limits = Limits(1.0, 20, waste=0.1)
    assert "n1" in select([*used, *prospects(1.0, 0.6)], limits).chosen
    found = select([*idle, *prospects(1.0, 0.6)], limits)
    assert found.reasons["n1"] is SkipReason.BEYOND_WASTE
    assert "n0" in found.chosen


def test_what_a_held_rollout_waits_for_comes_before_likelier_nodes_and_whatever_may_be_in_vain() -> None:
    others = prospects(*[0.95] * 12)
    first = [Prospect(f"first{i}", 0.4, MISSING, certain=0.4, vain=0.6, first=True) for i in range(10)]
    found = select([*others, *first], Limits(1.0, 18, waste=0.1))
    assert {prospect.name for prospect in first} <= found.chosen
    assert len(found.chosen) == 18


def test_where_most_pulls_would_be_in_vain_only_certain_nodes_are_taken_and_the_demand_is_unpredictable() -> None:
    found = select(prospects(*[0.95] * 5, *[0.6] * 20), Limits(0.99, 40, waste=0.1))
    assert found.chosen == {f"n{i}" for i in range(5)}
    assert set(found.reasons.values()) == {SkipReason.UNPREDICTABLE}


def test_a_handful_of_certain_nodes_is_left_where_nearly_all_pods_start_cold_either_way() -> None:
    found = select(prospects(0.95, 0.95, *[0.6] * 20), Limits(0.99, 40, waste=0.1))
    assert found.chosen == frozenset()
    assert set(found.reasons.values()) == {SkipReason.UNPREDICTABLE}


def test_among_three_nodes_a_pod_may_choose_where_so_many_may_be_in_vain() -> None:
    toss = prospects(1.0, 1.0, 0.34, 0.33, 0.33)
    assert select(toss, Limits(1.0, 10, waste=0.1, few=TWO_IN_VAIN)).chosen == {f"n{i}" for i in range(5)}
    assert len(select(toss, Limits(1.0, 10, waste=0.1)).chosen) == 3
    assert select(toss, Limits(1.0, 10, waste=0.0, few=TWO_IN_VAIN)).chosen == {"n0", "n1"}


def test_who_accepts_all_waste_gets_every_likely_node() -> None:
    assert len(select(prospects(*[0.6] * 20), Limits(0.99, 40, waste=1.0)).chosen) == 20


def test_an_unlikely_node_is_left_even_where_coverage_is_missed() -> None:
    found = select(prospects(0.5, 0.04), Limits(1.0, 10))
    assert found.chosen == {"n0"}
    assert found.reasons == {"n1": SkipReason.UNLIKELY}


def test_warm_nodes_count_as_covered_and_cost_nothing() -> None:
    warm = Prospect("warm", 0.6, ())
    found = select([warm, *prospects(0.3)], Limits(0.6, 0))
    assert found.chosen == {"warm"}
    assert found.reasons == {"warm": SkipReason.ALREADY_PRESENT, "n0": SkipReason.BEYOND_COVERAGE}


def test_what_we_pull_already_stays_chosen_whatever_its_chance() -> None:
    ours = Prospect("ours", 0.0, MISSING, ours=True)
    assert select([ours, *prospects(1.0)], Limits(0.9, 1)).chosen == {"ours", "n0"}


def test_a_pull_under_way_makes_a_new_one_needless() -> None:
    ours = Prospect("ours", 0.45, MISSING, ours=True)
    assert select([ours, *prospects(0.45)], Limits(0.5, 5)).chosen == {"ours"}


@pytest.mark.parametrize("state", list(NodeState))
def test_every_node_state_has_its_reason_and_takes_no_pull(state: NodeState) -> None:
    found = select([Prospect("n", 1.0, MISSING, obstacle=state)], Limits(1.0, 5))
    assert found.chosen == frozenset()
    assert found.reasons == {"n": OBSTACLES[state]}
    assert OBSTACLES[state].value.removeprefix("Node") == state.value.removeprefix("Node")


def test_where_a_pod_of_the_revision_pulls_nothing_is_pulled() -> None:
    found = select([Prospect("n", 0.9, MISSING, pod_pulls=True), *prospects(0.4)], Limits(0.6, 5))
    assert found.chosen == frozenset()
    assert found.reasons == {"n": SkipReason.PULLED_BY_POD, "n0": SkipReason.BEYOND_COVERAGE}


def test_before_the_burst_has_landed_only_nodes_likely_either_way_are_taken() -> None:
    nodes = [Prospect("sure", 1.0, MISSING, certain=1.0), Prospect("depends", 1.0, MISSING, certain=0.5)]
    found = select(nodes, Limits(1.0, 5, early=5))
    assert found.chosen == {"sure"}
    assert found.reasons == {"depends": SkipReason.UNSETTLED}
    assert select(prospects(1.0, 1.0, 1.0), Limits(1.0, 5, early=2)).chosen == {"n0", "n1"}


def test_an_unpredictable_demand_warms_nothing_new() -> None:
    found = select(prospects(0.3, 0.2), Limits(1.0, 5), withheld=SkipReason.UNPREDICTABLE)
    assert found.chosen == frozenset()
    assert set(found.reasons.values()) == {SkipReason.UNPREDICTABLE}


@pytest.mark.parametrize(
    ("probabilities", "nodes", "predictability", "expected"),
    [
        ([0.01] * 300, 5, 0.06, True),
        ([1.0] * 20, 30, 0.95, False),
        ([1.0] * 20, 5, 0.95, False),
        ([0.3] * 10, 5, 0.3, False),
        ([0.2] * 15, 5, 0.2, True),
        ([], 5, 0.0, False),
    ],
)
def test_unpredictable_means_more_misses_than_hits_even_with_the_largest_set(
    probabilities: list[float], nodes: int, predictability: float, expected: bool
) -> None:
    assert is_unpredictable(probabilities, nodes, predictability) is expected


@pytest.mark.parametrize(
    ("pods", "overprovision", "idle", "expected"),
    [(20, 1.5, 0, 30), (1, 1.5, 0, 2), (20, 1.5, 25, 5), (2, 1.5, 9, 0), (10, 1.1, 0, 11)],
)
def test_pulls_not_used_yet_count_against_the_limit(pods: int, overprovision: float, idle: int, expected: int) -> None:
    assert new_nodes_allowed(pods, overprovision, idle) == expected
