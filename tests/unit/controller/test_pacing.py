"""Intentions are planned at once; everything else within its share of the processor."""

import pytest
from msgspec.structs import replace

from prewarm.cluster.changes import Changes
from prewarm.controller.pacing import (
    CREDIT_SECONDS,
    LASTING_SHARE,
    PROGRESS_GAP_SECONDS,
    PROGRESS_SHARE,
    SURROUNDINGS_GAP_SECONDS,
    SURROUNDINGS_SHARE,
    URGENT_SECONDS,
    Pace,
)
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
    return needed_by(WEB, workload)


def needed_by(key: WorkloadKey, workload: Workload = V1) -> Plan:
    """The same, for a workload of this name."""
    demand = Demand(key, "uid", Trigger.ROLLOUT, "rev", ("web:v2",), workload.template, ())
    return Plan((DemandPlan(demand, Candidates(()), ()),))


def started(*, took: float = 0.0, plan: Plan | None = None) -> Pace:
    """A pace that planned everything at time 0."""
    pace = Pace(RESYNC)
    due = pace.due(Changes(), snapshot(), 0.0)
    assert due.everything
    pace.planned(due, plan or Plan(), 0.0, took)
    return pace


def only(*keys: WorkloadKey) -> Plan:
    """A plan for some workloads that need nothing."""
    return Plan(only=keys)


def test_everything_is_planned_first_and_at_each_resync() -> None:
    pace = started()
    assert not pace.due(Changes(), snapshot(), 1.0)
    assert pace.due(Changes(), snapshot(), RESYNC).everything


def test_a_changed_template_is_planned_at_once_however_long_planning_takes() -> None:
    pace = started(took=10.0)
    due = pace.due(Changes(workloads=frozenset({WEB})), snapshot(V2), 10.0)
    assert (due.urgent, due.others) == ((WEB,), ())


KEYS = [WorkloadKey("Deployment", "shop", f"web-{number}") for number in range(7)]


def many(workload: Workload) -> ClusterSnapshot:
    return cluster(workloads=[replace(workload, key=key) for key in KEYS])


def following() -> Pace:
    """A pace that planned many workloads."""
    pace = Pace(RESYNC)
    pace.planned(pace.due(Changes(), many(V1), 0.0), Plan(), 0.0, 0.0)
    return pace


def test_changed_templates_for_which_a_look_has_no_time_stay_due_each_until_it_is_planned() -> None:
    pace, after = following(), many(V2)
    due = pace.due(Changes(workloads=frozenset(KEYS)), after, 2.0)
    assert due.urgent == tuple(KEYS)
    planned: list[WorkloadKey] = []
    while due := pace.due(Changes(), after, 2.0):
        assert pace.urgent
        assert pace.wake_at() == 0.0
        # Whoever plans takes them in an order of its own.
        planned += due.urgent[-2:]
        pace.planned(due, only(*due.urgent[-2:]), 2.0, 2.0)
    assert sorted(planned) == KEYS
    assert not pace.urgent


def test_while_changed_templates_wait_nothing_else_is_planned() -> None:
    pace, after = following(), many(V2)
    pace.plan_again(KEYS[:3])
    due = pace.due(Changes(workloads=frozenset(KEYS[3:])), after, 2.0)
    assert (due.urgent, due.others) == (tuple(KEYS[3:]), ())
    pace.planned(due, only(*KEYS[3:]), 2.0, 2.0)
    assert pace.due(Changes(), after, pace.wake_at()).others == tuple(KEYS[:3])


def test_looks_that_take_long_for_other_reasons_plan_more_at_a_time() -> None:
    pace, after = following(), many(V2)
    due = pace.due(Changes(workloads=frozenset(KEYS)), after, 2.0)
    assert due.seconds == URGENT_SECONDS
    pace.planned(due, only(KEYS[0]), 2.0, 2.0 + URGENT_SECONDS)
    late = 2.0 + URGENT_SECONDS + 20 * URGENT_SECONDS
    assert pace.due(Changes(), after, late).seconds >= 39 * URGENT_SECONDS


def test_an_annotation_is_an_intention_too() -> None:
    pace = started(took=10.0)
    opted_out = replace(V1, annotations={"prewarm.dev/enabled": "false"})
    assert pace.due(Changes(workloads=frozenset({WEB})), snapshot(opted_out), 10.0).urgent == (WEB,)


def test_progress_of_a_rollout_keeps_to_its_share() -> None:
    took = 1.0
    pace = started(took=took)
    changes = Changes(workloads=frozenset({WEB}))
    assert not pace.due(changes, snapshot(), took + 0.1)
    at = pace.wake_at()
    assert took / at <= PROGRESS_SHARE + 1e-9
    assert pace.due(Changes(), snapshot(), at).others == (WEB,)


def test_workloads_that_go_on_take_turns() -> None:
    pace, now = following(), many(V1)
    assert not pace.due(Changes(workloads=frozenset(KEYS[:3])), now, 0.1)
    pace.due(Changes(workloads=frozenset(KEYS[3:])), now, 0.15)
    due = pace.due(Changes(workloads=frozenset(KEYS)), now, pace.wake_at())
    assert due.others == tuple(KEYS)
    ended = pace.wake_at() + 0.01
    pace.planned(due, only(KEYS[0], KEYS[1]), ended - 0.01, ended)
    pace.due(Changes(workloads=frozenset(KEYS[:1])), now, ended)
    assert pace.due(Changes(), now, pace.wake_at()).others == (*KEYS[2:], KEYS[0])


def test_what_costs_ten_times_as_much_waits_ten_times_as_long() -> None:
    pace, now = following(), many(V1)
    cheap, dear = KEYS[1], KEYS[0]
    pace.plan_again([cheap, dear])
    due = pace.due(Changes(), now, 1.0)
    both = Plan((*needed_by(cheap).demands, *needed_by(dear).demands), only=(dear, cheap))
    pace.planned(due, both, 1.0, 1.0, {cheap: 0.01, dear: 0.1})
    pace.due(Changes(workloads=frozenset({dear})), now, 10.0)
    pace.due(Changes(workloads=frozenset({cheap})), now, 18.0)
    assert pace.due(Changes(), now, 19.0).others == (cheap, dear)
    pace.planned(pace.due(Changes(), now, 19.0), replace(needed_by(cheap), only=(cheap,)), 19.0, 19.0)
    pace.due(Changes(workloads=frozenset({cheap})), now, 19.5)
    assert pace.due(Changes(), now, 20.0).others == (dear, cheap)


def test_following_many_rollouts_takes_less_in_the_long_run() -> None:
    pace, now = following(), many(V1)
    changes = Changes(workloads=frozenset(KEYS))
    spent, at, early, took = 0.0, 0.0, 0.0, 0.1
    while at < 100 * CREDIT_SECONDS / LASTING_SHARE:
        due = pace.due(changes, now, at)
        if due.everything:
            pace.planned(due, Plan(), at, at)
        elif due:
            pace.planned(due, only(due.others[0]), at, at + took)
            at, spent = at + took, spent + took
        if not early and spent >= CREDIT_SECONDS:
            early = spent / at
        at = max(at + 0.01, min(pace.wake_at(), at + 1.0))
    assert early == pytest.approx(PROGRESS_SHARE, rel=0.1)
    assert spent / at == pytest.approx(LASTING_SHARE, rel=0.1)


def test_the_rest_of_the_cluster_concerns_only_plans_that_could_change() -> None:
    nodes = Changes(nodes=frozenset({"node-a"}))
    quiet = started()
    assert not quiet.due(nodes, snapshot(), 100.0)
    took = 1.0
    busy = started(took=took, plan=needed(V1))
    assert not busy.due(nodes, snapshot(), took + 0.1)
    at = busy.wake_at()
    assert took / at <= SURROUNDINGS_SHARE + 1e-9
    assert busy.due(Changes(), snapshot(), at).others == (WEB,)


def test_a_node_that_joins_is_looked_at_soon_if_pods_wait_for_one() -> None:
    took = 1.0
    waiting = needed(V1)
    group = NewNodes("karpenter.sh/nodepool", "general", 1, 1)
    waiting = replace(waiting, demands=(replace(waiting.demands[0], new_nodes=(group,)),))
    pace = started(took=took, plan=waiting)
    joined = replace(snapshot(), taken_at=1000.0, nodes={"node-a": Node("node-a", created_at=999.0)})
    assert not pace.due(Changes(nodes=frozenset({"node-a"})), joined, took + 0.1)
    assert pace.due(Changes(), joined, took * (1 / PROGRESS_SHARE)).others == (WEB,)


def test_a_policy_may_cover_anything() -> None:
    assert started(took=10.0).due(Changes(policies=frozenset({"default"})), snapshot(), 10.0).everything


def test_what_failed_is_planned_again() -> None:
    pace = started()
    pace.plan_again([WEB])
    assert pace.due(Changes(), snapshot(), 1.0).others == (WEB,)


def test_a_workload_that_went_is_planned_once_more() -> None:
    pace = started(took=10.0)
    assert pace.due(Changes(workloads=frozenset({WEB})), cluster(), 10.0).urgent == (WEB,)


def test_what_comes_by_the_clock_is_planned_when_it_is_time() -> None:
    at = snapshot().taken_at + 50.0
    pace = started(plan=Plan(later=((WEB, at),)))
    assert not pace.due(Changes(), replace(snapshot(), taken_at=at - 1.0), 49.0)
    due = pace.due(Changes(), replace(snapshot(), taken_at=at), 50.0)
    assert due.others == (WEB,)
    pace.planned(due, only(WEB), 50.0, 50.0)
    assert not pace.due(Changes(), replace(snapshot(), taken_at=at), 50.1)


V3 = replace(deployment(template("web:v3")), generation=3)


def rolling(now: float) -> Pace:
    """A pace with a changed template whose long plan was begun at a time."""
    pace = started()
    due = pace.due(Changes(workloads=frozenset({WEB})), snapshot(V2), now)
    assert due.urgent == (WEB,)
    pace.begun(WEB, V2)
    pace.planned(due, only(), now, now)
    return pace


def test_what_is_being_planned_is_not_due() -> None:
    pace = rolling(1.0)
    assert not pace.urgent
    assert not pace.due(Changes(), snapshot(V2), 1.1)
    assert not pace.is_active(WEB)
    pace.finished(WEB, needed(V2), 0.5, 1.5)
    assert pace.is_active(WEB)
    assert pace.cost(WEB) == 0.5


def test_progress_during_a_long_plan_is_planned_after_it() -> None:
    pace = rolling(1.0)
    pace.due(Changes(workloads=frozenset({WEB})), snapshot(V2), 1.1)
    pace.finished(WEB, needed(V2), 0.5, 1.5)
    assert pace.due(Changes(), snapshot(V2), 1.5 + 0.5 / PROGRESS_SHARE).others == (WEB,)


def test_a_long_plan_is_void_once_its_owner_wants_another_template() -> None:
    pace = rolling(1.0)
    assert not pace.is_void(WEB, V2)
    assert pace.is_void(WEB, V3)
    assert pace.due(Changes(workloads=frozenset({WEB})), snapshot(V3), 1.1).urgent == (WEB,)


def test_a_long_plan_is_void_once_its_owner_wants_none() -> None:
    assert rolling(1.0).is_void(WEB, replace(V2, annotations={"prewarm.dev/enabled": "false"}))


def test_a_long_plan_is_void_once_its_workload_is_gone_or_leaves() -> None:
    pace = rolling(1.0)
    assert pace.is_void(WEB, None)
    assert pace.is_void(WEB, replace(V2, deleted_at=1001.0))
    assert pace.is_void(WEB, replace(V2, uid="uid-of-another"))


def test_what_is_given_up_is_due_anew_and_so_is_whoever_waited_for_it() -> None:
    pace = waiting(1.0)
    pace.given_up(KEYS[0])
    assert pace.urgent
    assert set(pace.due(Changes(), changed(2), 1.1).urgent) == set(KEYS[:2])


def test_a_long_plan_is_heeded_though_its_owner_scaled_meanwhile() -> None:
    """An autoscaler may do so in each second: then nothing would ever be heeded."""
    pace = rolling(1.0)
    scaled = replace(V2, replicas=V2.replicas + 1, generation=3)
    assert pace.due(Changes(workloads=frozenset({WEB})), snapshot(scaled), 1.1).urgent == (WEB,)
    assert not pace.is_void(WEB, scaled)
    pace.finished(WEB, needed(V2), 0.5, 1.5)
    assert pace.due(Changes(), snapshot(scaled), 1.6).urgent == (WEB,)


def test_a_long_plan_is_void_once_everything_was_planned_anew() -> None:
    pace = rolling(1.0)
    pace.plan_everything()
    due = pace.due(Changes(), snapshot(V2), 1.1)
    pace.planned(due, needed(V2), 1.1, 1.2)
    assert pace.is_void(WEB, V2)
    pace.given_up(WEB)
    assert not pace.urgent


def test_long_plans_keep_to_the_share_of_progress() -> None:
    pace = rolling(1.0)
    pace.finished(WEB, needed(V2), 0.5, 1.5)
    gone_on = Changes(workloads=frozenset({WEB}))
    assert not pace.due(gone_on, snapshot(V2), 1.6)
    assert pace.due(gone_on, snapshot(V2), 1.5 + 0.5 / PROGRESS_SHARE).others == (WEB,)


def changed(number: int) -> ClusterSnapshot:
    """The first so many of many have another template."""
    return cluster(workloads=[replace(V2 if key in KEYS[:number] else V1, key=key) for key in KEYS])


def waiting(now: float) -> Pace:
    """A pace with one changed template whose long plan is being made, and another that waits for that."""
    pace = following()
    due = pace.due(Changes(workloads=frozenset(KEYS[:2])), changed(2), now)
    pace.begun(KEYS[0], V2)
    pace.planned(due, only(), now, now, waiting=KEYS[1:2])
    return pace


def test_whoever_waits_for_a_long_plan_keeps_nobody_waiting_and_nobody_awake() -> None:
    pace = waiting(1.0)
    assert not pace.urgent
    assert pace.wake_at() == RESYNC
    due = pace.due(Changes(workloads=frozenset({KEYS[2]})), changed(2), 1.0 + 10 * PROGRESS_GAP_SECONDS)
    assert (due.urgent, due.others) == ((KEYS[1],), (KEYS[2],))
    pace.planned(due, only(KEYS[2]), 3.0, 3.0, waiting=KEYS[1:2])
    assert pace.wake_at() == RESYNC


def test_others_that_go_on_are_planned_in_their_time_while_somebody_waits() -> None:
    pace = waiting(1.0)
    for now in (1.1, 1.15, 1.2):
        pace.planned(pace.due(Changes(), changed(2), now), only(), now, now, waiting=KEYS[1:2])
    progressed = Changes(workloads=frozenset({KEYS[2]}))
    assert pace.due(progressed, changed(2), 1.0 + PROGRESS_GAP_SECONDS).others == (KEYS[2],)


def test_a_new_change_is_due_at_once_while_others_wait_for_a_long_plan() -> None:
    pace = waiting(1.0)
    due = pace.due(Changes(workloads=frozenset({KEYS[2]})), changed(3), 1.1)
    assert pace.urgent
    assert pace.wake_at() == 0.0
    assert (due.urgent, due.others) == ((KEYS[1], KEYS[2]), ())


def test_whoever_waited_is_due_at_once_when_the_long_plan_is_finished() -> None:
    pace = waiting(1.0)
    pace.finished(KEYS[0], needed_by(KEYS[0], V2), 0.5, 1.5)
    assert pace.urgent
    assert pace.wake_at() == 0.0


def test_surroundings_that_wait_for_a_long_plan_keep_nobody_awake() -> None:
    pace = Pace(RESYNC)
    active = Plan(tuple(entry for key in KEYS[:2] for entry in needed_by(key).demands))
    pace.planned(pace.due(Changes(), many(V1), 0.0), active, 0.0, 0.0)
    at = 10 * SURROUNDINGS_GAP_SECONDS
    due = pace.due(Changes(nodes=frozenset({"n"})), many(V1), at)
    assert due.others == tuple(KEYS[:2])
    pace.begun(KEYS[0], V1)
    pace.planned(due, only(), at, at, waiting=KEYS[1:2])
    assert pace.wake_at() > at
    pace.finished(KEYS[0], needed_by(KEYS[0]), 0.0, at)
    later = at + SURROUNDINGS_GAP_SECONDS
    assert pace.due(Changes(), many(V1), later).others == (KEYS[1],)
