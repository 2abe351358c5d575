"""Owners are told once what happens to their workload, and what is wrong with it."""

from msgspec.structs import replace

from prewarm.controller.announcing import Announcer
from prewarm.model.intents import DEPLOYMENTS
from prewarm.model.plans import (
    Batch,
    Candidates,
    Demand,
    DemandPlan,
    Plan,
    PlannedNode,
    Problem,
    Skip,
    SkipReason,
    Trigger,
)
from prewarm.model.steering import Steering, SteerState
from tests.support.clusters import WEB, cluster, deployment, template

IMAGE = "registry.example/team/web:v2"
SNAPSHOT = cluster(workloads=[deployment(template(IMAGE))])


def plan(*nodes: PlannedNode, revision: str = "rev-2", skips: tuple[Skip, ...] = (), shadow: bool = False) -> Plan:
    demand = Demand(WEB, "uid-web", Trigger.ROLLOUT, revision, (IMAGE,), template(IMAGE), (Batch(0.0, 5),))
    return Plan((DemandPlan(demand, Candidates((), predictability=0.06), nodes, skips, shadow),))


def cold(name: str) -> PlannedNode:
    return PlannedNode(name, 0.9, (IMAGE,))


def test_a_plan_is_announced_on_the_workload() -> None:
    (event,) = Announcer().about(plan(cold("a"), cold("b"), PlannedNode("c", 0.9, ())), SNAPSHOT)
    assert (event.resource, event.namespace, event.name, event.uid) == (DEPLOYMENTS, "shop", "web", "uid-web")
    assert (event.reason, event.message) == ("Prewarming", "Prewarming 2 nodes for web:v2 (Rollout, 5 pods to come)")
    assert not event.warning


def test_the_same_revision_is_announced_once_though_its_nodes_change() -> None:
    announcer = Announcer()
    assert announcer.about(plan(cold("a")), SNAPSHOT)
    assert not announcer.about(plan(cold("b"), cold("c")), SNAPSHOT)
    assert announcer.about(plan(cold("a"), revision="rev-3"), SNAPSHOT)


def test_what_an_earlier_instance_announced_is_not_repeated() -> None:
    announcer = Announcer()
    announcer.known([(WEB, "rev-2")])
    assert not announcer.about(plan(cold("a")), SNAPSHOT)


def test_shadow_mode_says_what_it_would_do() -> None:
    (event,) = Announcer().about(plan(cold("a"), shadow=True), SNAPSHOT)
    assert event.message.startswith("Would prewarm 1 node for web:v2")


def test_unpredictable_placement_comes_with_advice() -> None:
    skips = (Skip(SkipReason.UNPREDICTABLE, WEB, "a"),)
    (event,) = Announcer().about(plan(skips=skips), SNAPSHOT)
    assert event.reason == "PrewarmUnpredictable"
    assert "6% of the pods" in event.message
    assert "placement.steer: Prefer" in event.message
    assert "prewarm warm" in event.message


def steered(made: Plan, state: SteerState) -> Plan:
    (entry,) = made.demands
    return replace(made, demands=(replace(entry, steering=Steering(state)),))


def test_where_a_policy_asks_for_steering_in_vain_the_reason_is_told() -> None:
    made = plan(skips=(Skip(SkipReason.UNPREDICTABLE, WEB, "a"),))
    (event,) = Announcer().about(steered(made, SteerState.UNSUPPORTED), SNAPSHOT)
    assert "not steered: the API server has no MutatingAdmissionPolicy" in event.message


def test_a_plan_that_steers_says_so() -> None:
    (event,) = Announcer().about(steered(plan(cold("a")), SteerState.STEERED), SNAPSHOT)
    assert event.message == "Prewarming 1 node for web:v2 (Rollout, 5 pods to come, steered there)"


def test_nothing_to_pull_is_nothing_to_say() -> None:
    assert not Announcer().about(plan(PlannedNode("a", 0.9, ())), SNAPSHOT)


def test_a_problem_is_a_warning_once() -> None:
    announcer = Announcer()
    broken = Plan(problems=(Problem(WEB, "annotation prewarm.dev/headroom is '1x'"),))
    (event,) = announcer.about(broken, SNAPSHOT)
    assert event.warning
    assert "prewarm.dev/headroom" in event.message
    assert not announcer.about(broken, SNAPSHOT)
