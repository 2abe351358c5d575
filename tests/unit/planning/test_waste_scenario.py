"""Stock rollouts where nobody can know all the nodes, played to their end with every plan carried out."""

from random import Random

import pytest
from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.history.state import Measured
from prewarm.model.nodes import Evidence, Node
from prewarm.model.pods import Pod
from prewarm.planning import plan
from tests.support.clusters import deployment, node, shape, template
from tests.support.player import Player
from tests.unit.planning.test_rollout_scenario import HISTORY, NEW, OLD, REPLICAS, Run, changed
from tests.unit.planning.test_rollout_scenario import prepared as varied


def equal_nodes(count: int) -> dict[str, Node]:
    return {f"node-{index:03d}": node(f"node-{index:03d}", zone="abc"[index % 3]) for index in range(count)}


def prepared(seed: int, nodes: int, surge: int | str = "25%", unavailable: int | str = 0) -> Run:
    """The Deployment has been running v1 for ten minutes, and gets v2 now."""
    player = Player(
        equal_nodes(nodes),
        deployment(template(OLD), replicas=REPLICAS, max_surge=surge, max_unavailable=unavailable),
        seed=seed,
        pull_seconds=1.0,
    )
    return Run(changed(player))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    shares = (("25%", 0), (0, "25%"))
    played = [
        prepared(seed, nodes, surge, unavailable)
        for surge, unavailable in shares
        for seed, nodes in ((1, 60), (2, 60), (3, 45), (4, 90))
    ]
    for run in played:
        run.play()
    return played


def in_vain(run: Run) -> int:
    """Pulls of ours on nodes where no pod of the revision came."""
    used = {name for name, _, _ in run.player.starts}
    return sum(name not in used for name in pulled_nodes(run))


def pulled_nodes(run: Run) -> list[str]:
    """Where an image was pulled for us."""
    images = {name: found.get(NEW) for name, found in run.player.present.items()}
    return [name for name, image in images.items() if image is not None and image.evidence is Evidence.OUR_PULL]


def test_little_is_pulled_in_vain_on_equal_nodes(runs: list[Run]) -> None:
    pulled = sum(len(pulled_nodes(run)) for run in runs)
    assert pulled
    assert sum(map(in_vain, runs)) / pulled <= 0.15


def test_what_is_held_until_nodes_are_warm_finds_the_certain_ones_warm() -> None:
    """The nodes that are empty at the start take the first pods, whichever of them they choose."""
    run = prepared(5, 60)
    run.player.workload = replace(run.player.workload, paused=True)
    run.replan()
    run.player.settle()
    run.player.workload = replace(run.player.workload, paused=False)
    run.play()
    first = [outcome for _, outcome, _ in run.player.starts[: REPLICAS // 4]]
    assert set(first) <= {"prewarmed", "present"}


def held(run: Run) -> Run:
    """The gate holds the change until what is planned is there."""
    workload = run.player.workload
    marked = {**workload.annotations, ANNOTATION_GATE_HELD: "2026-01-01T00:00:00Z"}
    run.player.workload = replace(workload, paused=True, annotations=marked)
    run.replan()
    run.player.settle()
    run.player.workload = workload
    return run


def outcomes(run: Run) -> list[str]:
    run.play()
    found = [outcome for _, outcome, _ in run.player.starts]
    assert len(found) == REPLICAS
    return found


@pytest.mark.parametrize("seed", [2, 3])
def test_what_the_gate_holds_starts_warm_altogether(seed: int) -> None:
    run = held(Run(varied(seed)))
    assert set(outcomes(run)) <= {"prewarmed", "present"}
    assert in_vain(run) <= 0.15 * len(pulled_nodes(run))


def test_where_all_nodes_have_room_the_gate_has_all_pods_start_warm() -> None:
    """On equal nodes whose status never says what is there: whoever waits wants all warm, whatever may be in vain."""
    run = held(prepared(5, 60))
    assert "miss" not in outcomes(run)


def tight(seed: int, surge: int | str, unavailable: int | str) -> Run:
    """Equal nodes with room for none, one or two pods: 1.5 for each that runs."""
    nodes = equal_nodes(60)
    names = Random(seed).sample(sorted(nodes), len(nodes))  # noqa: S311 - not cryptography
    load = [
        Pod("load", name, f"uid-load-{name}", node_name=name, shape=shape("load", cpu=7800 - 500 * (index % 3)))
        for index, name in enumerate(names)
    ]
    workload = deployment(template(OLD), replicas=REPLICAS, max_surge=surge, max_unavailable=unavailable)
    player = Player(nodes, workload, seed=seed, pull_seconds=1.0)
    player.load(load)
    run = Run(changed(player))
    player.pull_seconds = 5.0
    run.history = replace(HISTORY, pulls={NEW: Measured(5.0, 0.0)})
    return run


@pytest.mark.parametrize(("surge", "unavailable"), [("25%", 0), (0, "25%")])
def test_on_full_nodes_where_the_first_pods_land_shows_what_else_a_held_rollout_needs(
    surge: int | str, unavailable: int | str
) -> None:
    runs = [held(tight(seed, surge, unavailable)) for seed in (1, 2, 3)]
    found = [outcome for run in runs for outcome in outcomes(run)]
    assert found.count("miss") <= 0.05 * len(found)
    assert sum(map(in_vain, runs)) <= 0.15 * sum(len(pulled_nodes(run)) for run in runs)


def test_where_every_node_is_as_likely_as_the_others_none_is_pulled_on() -> None:
    run = prepared(6, 120)
    run.player.workload = replace(run.player.workload, paused=True)
    (entry,) = plan(run.player.snapshot(), HISTORY).demands
    assert entry.nodes == ()
    assert "Unpredictable" in {skip.reason.value for skip in entry.skips}
