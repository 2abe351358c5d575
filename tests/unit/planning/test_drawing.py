"""On nodes that are all alike, an image on some of them decides where pods go: ImageLocality."""

import pytest
from msgspec.structs import replace

from prewarm.delivery import decide_gates, deliver
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.intents import Apply
from prewarm.model.nodes import NodeImageStatus
from prewarm.model.plans import DemandPlan
from prewarm.model.pods import Pod
from prewarm.planning import LISTED_SECONDS, plan
from tests.support.clusters import deployment, template
from tests.support.plans import applied
from tests.support.player import Player
from tests.unit.planning.test_rollout_scenario import NEW, OLD, REPLICAS, Run, changed
from tests.unit.planning.test_waste_scenario import equal_nodes, held, in_vain, prepared, pulled_nodes

IMAGE_BYTES, LARGE_IMAGE_BYTES = 250_000_000, 4_000_000_000


def history(image_bytes: int) -> History:
    size = Measured(float(image_bytes), 0.0)
    return History(pulls={NEW: Measured(5.0, 0.0)}, image_sizes={OLD: size, NEW: size})


def equal(seed: int, nodes: int, image_bytes: int = IMAGE_BYTES, surge: int | str = "25%") -> Run:
    run = prepared(seed, nodes, surge, 0 if surge else "25%")
    run.history = history(image_bytes)
    run.player.pull_seconds = 5.0
    run.player.image_bytes = image_bytes
    run.player.listed_after = 20.0
    return run


def planned(run: Run) -> DemandPlan:
    (entry,) = plan(run.player.snapshot(), run.history).demands
    return entry


def of_held(run: Run) -> DemandPlan:
    """The plan while the gate holds the change, before anything was pulled."""
    marked = {**run.player.workload.annotations, "prewarm.dev/gate-held": "1970-01-01T00:26:40Z"}
    run.player.workload = replace(run.player.workload, paused=True, annotations=marked)
    return planned(run)


@pytest.mark.parametrize("surge", ["25%", 0])
@pytest.mark.parametrize(("seed", "nodes"), [(1, 60), (2, 45), (3, 90)])
def test_what_the_gate_holds_is_drawn_to_as_many_nodes_as_it_has_pods(seed: int, nodes: int, surge: int | str) -> None:
    run = held(equal(seed, nodes, surge=surge))
    run.play()
    outcomes = {outcome for _, outcome, _ in run.player.starts}
    assert len(run.player.starts) == REPLICAS
    assert outcomes <= {"prewarmed", "present"}
    assert in_vain(run) <= 0.05 * len(pulled_nodes(run))


def test_the_plan_says_that_it_counts_on_being_listed() -> None:
    entry = of_held(equal(1, 60))
    assert entry.drawn
    assert len(entry.nodes) == REPLICAS
    assert entry.candidates.predictability >= 0.9


def test_a_plan_that_was_carried_out_in_part_goes_on_with_the_same_nodes() -> None:
    run = equal(4, 60)
    run.player.listed_after = None
    first = {node.name for node in of_held(run).nodes}
    for pulled in (REPLICAS // 2, REPLICAS):
        for name in sorted(first)[:pulled]:
            run.player.prewarm(name, (NEW,))
        run.player.settle()
        entry = planned(run)
        assert {node.name for node in entry.nodes} == first
        assert entry.drawn, "the gate is to wait until the nodes list what was pulled"
    # The nodes that list it already do not make the others known.
    for name in sorted(first)[1:]:
        listed = NodeImageStatus((NEW,), IMAGE_BYTES)
        run.player.nodes[name] = replace(run.player.nodes[name], images=(listed,))
        assert planned(run).drawn, f"{name} lists the image, {min(first)} does not"
    # All is there, and yet the ImageCache is written, by which the gate knows that it has to wait.
    found = run.player.snapshot()
    made = plan(found, run.history)
    assert [type(intent) for intent in deliver(made, found)] == [Apply]
    assert decide_gates(found, made).held == 1


def test_nodes_that_were_ordered_stay_however_draws_fall() -> None:
    run = equal(4, 60)
    entry = of_held(run)
    before = run.player.snapshot()
    found = applied(before, deliver(plan(before, run.history), before))
    for seed in range(1, 4):
        (again,) = plan(found, run.history, seed=seed).demands
        assert {node.name for node in again.nodes} == {node.name for node in entry.nodes}


@pytest.mark.parametrize(
    "image_bytes",
    [pytest.param(10_000_000, id="too small to count"), pytest.param(30_000_000, id="spread over few nodes")],
)
def test_a_small_image_draws_nobody(image_bytes: int) -> None:
    """Below 23 MiB, times the share of nodes that have it, an image scores nothing."""
    assert not of_held(equal(1, 60, image_bytes)).drawn


@pytest.mark.parametrize(("image_bytes", "drawn"), [(IMAGE_BYTES, False), (LARGE_IMAGE_BYTES, True)])
def test_while_others_are_scheduled_only_a_large_image_draws(image_bytes: int, drawn: bool) -> None:
    """The scheduler then counts for each node how many listed the image when that one did: a few for the first ones."""
    run = equal(1, 60, image_bytes)
    names = sorted(run.player.nodes)
    bound = [
        Pod("others", f"p{number}", f"uid-p{number}", names[number], scheduled_at=run.player.now - number)
        for number in range(30)
    ]
    run.player.load(bound)
    assert of_held(run).drawn is drawn


def test_pods_that_may_come_at_any_time_are_not_drawn() -> None:
    """Whoever paused it may resume it before the nodes list the image."""
    run = equal(1, 60)
    run.player.workload = replace(run.player.workload, paused=True)
    assert not planned(run).drawn


def test_a_rollout_that_goes_on_now_is_not_drawn_to_nodes_that_list_the_image_later() -> None:
    assert not planned(equal(1, 60)).drawn


def test_pods_that_come_late_enough_are_drawn_without_a_gate() -> None:
    """The batch after the first comes minutes later: by then the nodes list what is pulled now."""
    slow = deployment(template(OLD), replicas=REPLICAS, max_surge="25%", max_unavailable=0)
    run = Run(changed(Player(equal_nodes(60), slow, pull_seconds=1.0, start_seconds=10 * LISTED_SECONDS, seed=5)))
    run.history = history(IMAGE_BYTES)
    run.player.reconcile()
    until = run.player.now + 2 * LISTED_SECONDS
    run.player.at(2 * LISTED_SECONDS, lambda: None)
    while run.player.now < until:
        run.player.step()
    assert planned(run).drawn
