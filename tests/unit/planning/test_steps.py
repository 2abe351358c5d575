"""A canary that rests on its way: nodes that only a later step may take are decided about when the one before has."""

import pytest
from msgspec.structs import replace

from prewarm.demand import far_ahead
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import ClusterArrays
from prewarm.planning.landing import Landing, Scene, landing
from prewarm.planning.steps import step_by_step
from prewarm.planning.underway import Underway
from tests.unit.placement.clusters import cluster, demand, node, pod, requests

NOW = 1000.0
IMAGE = "example.test/web:2"
FULL = [f"a{index}" for index in range(6)]
ROOMY = [f"b{index}" for index in range(3)]


def old_pods() -> list[Pod]:
    """One on each full node, ready in the same second: nobody knows who goes first."""
    return [replace(pod(name, name=name, shape=requests(1000)), ready_at=10.0) for name in FULL]


def canary(*steps: Batch, old: list[Pod], trigger: Trigger = Trigger.ROLLOUT) -> Demand:
    made = demand(shape=requests(1000), leaving=old, leaving_first=steps[0].leaving, batches=steps)
    return replace(made, images=(IMAGE,), trigger=trigger)


def snapshot(old: list[Pod]) -> ClusterSnapshot:
    return replace(cluster([node(name, cpu=1000) for name in [*FULL, *ROOMY]], old), taken_at=NOW)


def looked_at(found: Demand, old: list[Pod], pull_seconds: float = 5.0) -> Landing:
    at = snapshot(old)
    history = History(pulls={IMAGE: Measured(pull_seconds, 0.0)})
    none = Underway(frozenset(), frozenset(), frozenset())
    scene = Scene(found, at, history, none, ClusterArrays(at.nodes), seed=1)
    return step_by_step(scene, landing(scene))


def two_steps(apart: float) -> tuple[Batch, Batch]:
    return Batch(NOW + 60, 3, after_rest=True, at_once=0), Batch(NOW + 60 + apart, 3, leaving=3, after_rest=True)


def test_a_later_steps_tosses_wait_for_the_step_before() -> None:
    old = old_pods()
    assert looked_at(canary(*two_steps(60), old=old), old).awaited == set(FULL)


@pytest.mark.parametrize(("apart", "pull_seconds"), [(20.0, 5.0), (60.0, 30.0)])
def test_nothing_waits_where_pulls_would_come_too_late_then(apart: float, pull_seconds: float) -> None:
    old = old_pods()
    found = looked_at(canary(*two_steps(apart), old=old), old, pull_seconds)
    assert found.chances.keys() == {*ROOMY, *FULL}
    assert not found.awaited


def test_nothing_waits_for_a_pause_that_may_end_at_any_time() -> None:
    """An analysis, or a pipeline that promotes at once."""
    old = old_pods()
    first = two_steps(60)[0]
    assert not looked_at(canary(first, Batch(far_ahead(NOW), 3, leaving=3, after_rest=True), old=old), old).awaited


def test_nodes_that_are_certain_do_not_wait() -> None:
    """They are warm if somebody promotes the canary at once."""
    old = [replace(one, deleted_at=NOW - 1) if one.name in FULL[:3] else one for one in old_pods()]
    found = looked_at(canary(*two_steps(60), old=old), old)
    assert found.chances.keys() - found.awaited == {*ROOMY, *FULL[:3]}


def test_what_is_announced_is_warmed_for_all_steps() -> None:
    old = old_pods()
    assert not looked_at(canary(*two_steps(60), old=old, trigger=Trigger.ANNOUNCED), old).awaited


def test_a_step_under_way_first_shows_whom_it_lets_go() -> None:
    """Six pods come next; three old ones go before that, and have not been told to."""
    step = Batch(NOW + 60, 6, leaving=3, after_rest=True, at_once=3)
    undecided = old_pods()
    assert looked_at(canary(step, old=undecided), undecided).awaited == set(FULL)
    told = [replace(one, deleted_at=NOW + 30) if one.name in FULL[:3] else one for one in old_pods()]
    found = looked_at(canary(step, old=told), told)
    assert {name for name, chance in found.chances.items() if chance == 1.0} == {*ROOMY, *FULL[:3]}
    assert not found.awaited


def test_a_step_that_never_shows_it_is_decided_in_time_for_its_pulls() -> None:
    step = Batch(NOW + 30, 6, leaving=3, after_rest=True, at_once=3)
    old = old_pods()
    assert not looked_at(canary(step, old=old), old).awaited
