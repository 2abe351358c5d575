from prewarm.history.force import MAX_PLANS, RETENTION, plans_in_force
from prewarm.model.plans import Batch, Candidates, Demand, DemandPlan, Plan, PlannedNode, Skip, SkipReason, Trigger
from prewarm.model.workloads import WorkloadKey
from tests.support.clusters import WEB, template

OTHER = WorkloadKey("Deployment", "shop", "other")


def entry(*nodes: str, workload: WorkloadKey = WEB, revision: str = "v2", skips: tuple[Skip, ...] = ()) -> DemandPlan:
    demand = Demand(workload, "uid", Trigger.ROLLOUT, revision, ("a:1",), template("a:1"), (Batch(0.0, 1),))
    planned = tuple(PlannedNode(name, 1.0, ("a:1",)) for name in nodes)
    return DemandPlan(demand, Candidates(()), planned, skips)


def test_a_plan_comes_into_force() -> None:
    (found,) = plans_in_force((), Plan((entry("n1", "n2"),)), 10.0)
    assert (found.workload, found.revision, found.nodes, found.since, found.until) == (
        WEB,
        "v2",
        ("n1", "n2"),
        10.0,
        None,
    )


def test_nodes_add_up_while_pods_land() -> None:
    force = plans_in_force((), Plan((entry("n1", "n2"),)), 10.0)
    (found,) = plans_in_force(force, Plan((entry("n2", "n3"),)), 11.0)
    assert found.nodes == ("n1", "n2", "n3")
    assert found.since == 10.0


def test_a_plan_that_stays_in_force_for_days_forgets_nodes_that_it_left() -> None:
    """Headroom is planned for as long as its workload lives; one day it would have named every node."""
    force = plans_in_force((), Plan((entry("n1", "n2"),)), 10.0)
    later = 10.0 + RETENTION
    force = plans_in_force(force, Plan((entry("n2", "n3"),)), later)
    assert [(found.nodes, found.since, found.until) for found in force] == [
        (("n1", "n2"), 10.0, later),
        (("n2", "n3"), later, None),
    ]
    assert plans_in_force(force, Plan((entry("n2", "n3"),)), later + 1) == force
    (found,) = plans_in_force(force, Plan((entry("n2", "n3"),)), later + RETENTION)
    assert found.nodes == ("n2", "n3")


def test_a_withdrawn_plan_is_kept_for_its_retention() -> None:
    force = plans_in_force((), Plan((entry("n1"),)), 10.0)
    force = plans_in_force(force, Plan(), 20.0)
    assert force[0].until == 20.0
    assert plans_in_force(force, Plan(), 20.0 + RETENTION - 1) == force
    assert plans_in_force(force, Plan(), 20.0 + RETENTION) == ()


def test_a_plan_for_some_workloads_withdraws_nothing_of_others() -> None:
    force = plans_in_force((), Plan((entry("n1"), entry("n2", workload=OTHER))), 10.0)
    after = plans_in_force(force, Plan((), only=(OTHER,)), 20.0)
    assert {found.workload: found.until for found in after} == {WEB: None, OTHER: 20.0}


def test_a_superseded_revision_is_withdrawn_when_the_next_comes() -> None:
    force = plans_in_force((), Plan((entry("n1", revision="v2"),)), 10.0)
    after = plans_in_force(force, Plan((entry("n2", revision="v3"),)), 20.0)
    assert {found.revision: found.until for found in after} == {"v2": 20.0, "v3": None}


def test_withheld_nodes_are_remembered_with_their_reason_until_chosen() -> None:
    skips = (
        Skip(SkipReason.NODE_CORDONED, WEB, node="n2"),
        Skip(SkipReason.ALREADY_PRESENT, WEB, node="n3"),
        Skip(SkipReason.INVALID_IMAGE, WEB, image="X"),
    )
    force = plans_in_force((), Plan((entry("n1", skips=skips),)), 10.0)
    assert force[0].skipped == (("n2", "NodeCordoned"),)
    assert plans_in_force(force, Plan((entry("n2"),)), 11.0)[0].skipped == ()


def test_an_unpredictable_plan_says_so() -> None:
    skips = (Skip(SkipReason.UNPREDICTABLE, WEB, node="n1"),)
    assert plans_in_force((), Plan((entry(skips=skips),)), 10.0)[0].unpredictable


def test_the_same_plan_twice_changes_nothing() -> None:
    plan = Plan((entry("n1"),))
    force = plans_in_force((), plan, 10.0)
    assert plans_in_force(force, plan, 99.0) == force


def test_the_oldest_withdrawn_plans_go_first() -> None:
    many = Plan(tuple(entry("n", revision=f"r{i}") for i in range(MAX_PLANS)))
    force = plans_in_force((), many, 10.0)
    force = plans_in_force(force, Plan((entry("n", revision="new"),)), 20.0)
    assert len(force) == MAX_PLANS
    assert any(found.revision == "new" and found.until is None for found in force)
