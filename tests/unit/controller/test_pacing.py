"""Intentions are planned at once; everything else within its share of the processor."""

from msgspec.structs import replace

from prewarm.cluster.changes import Changes
from prewarm.controller.pacing import PROGRESS_SHARE, SURROUNDINGS_SHARE, URGENT_SECONDS, Due, Pace
from prewarm.model.nodes import Node
from prewarm.model.plans import Candidates, Demand, DemandPlan, NewNodes, Plan, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import WEB, cluster, deployment, template

RESYNC = 300.0
V1, V2 = deployment(template("web:v1")), replace(deployment(template("web:v2")), generation=2)


def snapshot(workload: Workload = V1) -> ClusterSnapshot:
    return cluster(workloads=[workload])


def needed(workload: Workload) -> Plan:
    """A plan that asks for something."""
    demand = Demand(WEB, "uid", Trigger.ROLLOUT, "rev", ("web:v2",), workload.template, ())
    return Plan((DemandPlan(demand, Candidates(()), ()),))


def started(*, took: float = 0.0, plan: Plan | None = None) -> Pace:
    """A pace that planned everything at time 0."""
    pace = Pace(RESYNC)
    due = pace.due(Changes(), snapshot(), 0.0)
    assert due.workloads is None
    pace.planned(due, plan or Plan(), 0.0, took)
    return pace


def test_everything_is_planned_first_and_at_each_resync() -> None:
    pace = started()
    assert not pace.due(Changes(), snapshot(), 1.0)
    assert pace.due(Changes(), snapshot(), RESYNC).workloads is None


def test_a_changed_template_is_planned_at_once_however_long_planning_takes() -> None:
    pace = started(took=10.0)
    due = pace.due(Changes(workloads=frozenset({WEB})), snapshot(V2), 10.0)
    assert due == Due(frozenset({WEB}), frozenset({WEB}))


def test_many_changed_templates_are_planned_a_few_at_a_time_each_once() -> None:
    keys = [WorkloadKey("Deployment", "shop", f"web-{number}") for number in range(7)]
    before = cluster(workloads=[replace(V1, key=key) for key in keys])
    pace = Pace(RESYNC)
    pace.planned(pace.due(Changes(), before, 0.0), Plan(), 0.0, 0.0)
    pace.planned(Due(frozenset({keys[0]})), Plan(), 1.0, 1.0 + URGENT_SECONDS / 3.5)
    after = cluster(workloads=[replace(V2, key=key) for key in keys])
    looks = [pace.due(Changes(workloads=frozenset(keys)), after, 2.0)]
    while looks[-1].waiting:
        assert pace.wake_at() == 0.0
        pace.planned(looks[-1], Plan(), 2.0 - len(looks[-1].urgent) * URGENT_SECONDS / 3.5, 2.0)
        looks.append(pace.due(Changes(), after, 2.0))
    planned = [key for due in looks for key in due.urgent]
    assert [len(due.urgent) for due in looks] == [3, 3, 1]
    assert sorted(planned) == keys
    assert not pace.due(Changes(), after, 2.0)


def test_looks_that_take_long_for_other_reasons_plan_more_at_a_time() -> None:
    keys = [WorkloadKey("Deployment", "shop", f"web-{number}") for number in range(50)]
    pace = Pace(RESYNC)
    pace.planned(pace.due(Changes(), cluster(workloads=[replace(V1, key=key) for key in keys]), 0.0), Plan(), 0.0, 0.0)
    pace.planned(Due(frozenset({keys[0]})), Plan(), 1.0, 1.0 + URGENT_SECONDS)
    after = cluster(workloads=[replace(V2, key=key) for key in keys])
    first = pace.due(Changes(workloads=frozenset(keys)), after, 2.0)
    pace.planned(first, Plan(), 2.0, 2.0 + URGENT_SECONDS)
    late = 2.0 + URGENT_SECONDS + 20 * URGENT_SECONDS
    second = pace.due(Changes(), after, late)
    assert len(first.urgent) == 1
    assert len(second.urgent) >= 39


def test_a_plan_that_takes_longer_than_a_look_may_is_made_all_the_same() -> None:
    pace = started(took=0.0)
    pace.planned(Due(frozenset({WEB})), Plan(), 1.0, 1.0 + 5 * URGENT_SECONDS)
    assert pace.due(Changes(workloads=frozenset({WEB})), snapshot(V2), 2.0).urgent == {WEB}


def test_an_annotation_is_an_intention_too() -> None:
    pace = started(took=10.0)
    opted_out = replace(V1, annotations={"prewarm.dev/enabled": "false"})
    assert pace.due(Changes(workloads=frozenset({WEB})), snapshot(opted_out), 10.0).urgent == {WEB}


def test_progress_of_a_rollout_keeps_to_its_share() -> None:
    took = 1.0
    pace = started(took=took)
    changes = Changes(workloads=frozenset({WEB}))
    assert not pace.due(changes, snapshot(), took + 0.1)
    at = pace.wake_at()
    assert took / at <= PROGRESS_SHARE + 1e-9
    assert pace.due(Changes(), snapshot(), at) == Due(frozenset({WEB}), frozenset())


def test_the_rest_of_the_cluster_concerns_only_plans_that_could_change() -> None:
    nodes = Changes(nodes=frozenset({"node-a"}))
    quiet = started()
    assert not quiet.due(nodes, snapshot(), 100.0)
    took = 1.0
    busy = started(took=took, plan=needed(V1))
    assert not busy.due(nodes, snapshot(), took + 0.1)
    at = busy.wake_at()
    assert took / at <= SURROUNDINGS_SHARE + 1e-9
    assert busy.due(Changes(), snapshot(), at).workloads == frozenset({WEB})


def test_a_node_that_joins_is_looked_at_soon_if_pods_wait_for_one() -> None:
    took = 1.0
    waiting = needed(V1)
    group = NewNodes("karpenter.sh/nodepool", "general", 1, 1)
    waiting = replace(waiting, demands=(replace(waiting.demands[0], new_nodes=(group,)),))
    pace = started(took=took, plan=waiting)
    joined = replace(snapshot(), taken_at=1000.0, nodes={"node-a": Node("node-a", created_at=999.0)})
    assert not pace.due(Changes(nodes=frozenset({"node-a"})), joined, took + 0.1)
    assert pace.due(Changes(), joined, took * (1 / PROGRESS_SHARE)).workloads == frozenset({WEB})


def test_a_policy_may_cover_anything() -> None:
    assert started(took=10.0).due(Changes(policies=frozenset({"default"})), snapshot(), 10.0).workloads is None


def test_what_failed_is_planned_again() -> None:
    pace = started()
    pace.plan_again([WEB])
    assert pace.due(Changes(), snapshot(), 1.0).workloads == frozenset({WEB})


def test_a_workload_that_went_is_planned_once_more() -> None:
    pace = started(took=10.0)
    assert pace.due(Changes(workloads=frozenset({WEB})), cluster(), 10.0).urgent == {WEB}


def test_what_comes_by_the_clock_is_planned_when_it_is_time() -> None:
    at = snapshot().taken_at + 50.0
    pace = started(plan=Plan(later=((WEB, at),)))
    assert not pace.due(Changes(), replace(snapshot(), taken_at=at - 1.0), 49.0)
    due = pace.due(Changes(), replace(snapshot(), taken_at=at), 50.0)
    assert due == Due(frozenset({WEB}), frozenset())
    pace.planned(due, Plan(only=(WEB,)), 50.0, 50.0)
    assert not pace.due(Changes(), replace(snapshot(), taken_at=at), 50.1)
