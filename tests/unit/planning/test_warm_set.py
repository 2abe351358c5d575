"""On full nodes steered pods go to the room that is there, and to that of old pods once it is known who leaves."""

from collections import Counter
from functools import cache
from random import Random

import pytest
from msgspec.structs import replace

from prewarm.api.plan_annotation import encode_summary, summary
from prewarm.demand import MAX_BATCHES
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.nodes import Evidence
from prewarm.model.plans import Batch, Demand, DemandPlan, SkipReason, Trigger
from prewarm.model.pods import OwnerReference, Pod, SpreadConstraint
from prewarm.model.selectors import LabelSelector
from prewarm.model.steering import Steering, SteerState
from prewarm.planning import plan
from prewarm.planning.steering import is_outweighed
from prewarm.planning.warm_set import urgent_pods, without_last
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, shape, template
from tests.unit.planning import test_steered_scenario as scenario

NEW = template(scenario.NEW)
PULL = 5.0


def demand(*batches: Batch) -> Demand:
    return Demand(WEB, "uid-web", Trigger.ROLLOUT, "rev", (scenario.NEW,), NEW, batches)


def test_pods_wait_whose_room_is_known_a_pull_s_time_before_they_come() -> None:
    """Ten old pods are told to go with the batch at 4 s, and have left when that at 8 s comes."""
    coming = demand(Batch(0.0, 10), Batch(4.0, 10), Batch(8.0, 10, leaving=10), Batch(12.0, 10, leaving=10))
    # Those that come at 12 s take the room of those told at 4 s, if there was room for all before.
    assert urgent_pods(coming, 0, 10, enough=8.0) == 0
    assert urgent_pods(coming, 0, 10, enough=8.1) == 10
    # With room for ten fewer, those at 8 s need theirs.
    assert urgent_pods(coming, 0, 20, enough=4.0) == 0
    assert urgent_pods(coming, 0, 20, enough=4.1) == 20


def test_whoever_was_told_to_go_is_known() -> None:
    coming = demand(Batch(0.0, 1), Batch(4.0, 2, leaving=2), Batch(5.0, 2, leaving=2))
    assert urgent_pods(coming, 0, 2, enough=3.0) == 0
    assert urgent_pods(coming, 2, 2, enough=3.0) == 2


def test_pods_without_an_old_one_to_follow_and_those_that_nobody_can_time_hurry_nobody() -> None:
    coming = demand(Batch(0.0, 1), Batch(4.0, 2, leaving=2), Batch(5.0, 2, leaving=2))
    assert urgent_pods(coming, 4, 2, enough=9.0) == 0
    slow = tuple(Batch(5.0 * number, 1, leaving=1) for number in range(MAX_BATCHES - 1))
    merged = demand(*slow, Batch(5.0 * MAX_BATCHES, 300, leaving=300))
    assert urgent_pods(merged, 10, 400, enough=45.0) == 0


def test_an_endless_pause_leaves_time() -> None:
    """Both steps wait for a person, so both are expected at the same far time."""
    coming = demand(Batch(9e9, 2), Batch(9e9, 2, leaving=2, after_rest=True))
    assert urgent_pods(coming, 0, 2, enough=8.0) == 0


def test_the_last_pods_are_left_out() -> None:
    coming = demand(Batch(0.0, 2), Batch(4.0, 3))
    assert [batch.pods for batch in without_last(coming, 0).batches] == [2, 3]
    assert [batch.pods for batch in without_last(coming, 1).batches] == [2, 2]
    assert [batch.pods for batch in without_last(coming, 3).batches] == [2]
    assert without_last(coming, 5).batches == ()


def full_cluster(*, start_seconds: float) -> DemandPlan:
    """Four pods on four of six nodes with room for one each; a held change, one node's room at a time."""
    nodes = [node(f"n{number}", cpu=1) for number in range(6)]
    old = template(scenario.OLD, cpu=700)
    new = template(scenario.NEW, cpu=700)
    workload = deployment(new, replicas=4, paused=True, max_surge=0, max_unavailable=1)
    owner = replica_set(workload, old, 4)
    by = OwnerReference("ReplicaSet", owner.key.name, owner.uid)
    pods = [
        Pod("shop", f"old{number}", f"uid-{number}", f"n{number}", owner.template.labels, owner=by, shape=old.shape)
        for number in range(4)
    ]
    ready = [replace(pod, created_at=900.0, scheduled_at=900.0, ready_at=900.0 + start_seconds) for pod in pods]
    history = History(pulls={scenario.NEW: Measured(PULL, 0.0)})
    of = cluster(nodes, ready, [workload], [owner], policies=[scenario.PREFER])
    (found,) = plan(of, history).demands
    return found


def steering(found: DemandPlan) -> Steering:
    assert found.steering is not None
    return found.steering


def test_nodes_with_room_are_chosen_and_the_others_once_it_is_known_who_leaves() -> None:
    found = full_cluster(start_seconds=60.0)
    assert set(steering(found).nodes) == {"n4", "n5"}
    assert steering(found).waits == 2
    assert {node.name for node in found.nodes if node.missing} == {"n4", "n5"}
    reasons = {skip.node: skip.reason for skip in found.skips if skip.node}
    assert set(reasons.values()) == {SkipReason.UNSETTLED}


def test_pods_that_fit_nowhere_take_nothing_from_the_others() -> None:
    """One zone is full, and its pods may not be elsewhere: nodes of the others are chosen as if it were not there."""
    same = LabelSelector((("app", "web"),))
    spread = SpreadConstraint(1, "topology.kubernetes.io/zone", hard=True, selector=same)
    wanted = replace(NEW, labels={"app": "web"}, shape=replace(NEW.shape, spread=(spread,)))
    nodes = [node(f"n{number:02}", zone="ab"[number % 2]) for number in range(80)]
    full = [node(f"full{number}", zone="c", cpu=0) for number in range(3)]
    workload = deployment(wanted, replicas=24, paused=True)
    of = cluster([*nodes, *full], workloads=[workload], policies=[scenario.PREFER])
    (found,) = plan(of, scenario.HISTORY).demands
    assert found.candidates.unplaced
    assert steering(found).state is SteerState.STEERED
    assert len(steering(found).nodes) == 24 - found.candidates.unplaced


def test_what_was_planned_stays_though_the_next_pods_come_before_it_is_pulled() -> None:
    """Its pulls may be under way the next moment; each plan would choose others."""
    player = scenario.prepared(1, 60)
    player.reconcile()
    while player.now < 1608.0 and player.step():
        pass
    snapshot = player.snapshot()
    (first,) = plan(snapshot, scenario.HISTORY).demands
    chosen = {one.name for one in first.nodes if one.missing}
    assert first.demand.batches[0].needed_at < snapshot.taken_at + scenario.PULL_SECONDS
    assert len(chosen) >= 10
    said = encode_summary(
        summary("Rollout", player.workload.template_hash, pods=1, predictability=1, coverage=1, nodes=[])
    )
    lists = (ImageList((scenario.NEW,), node_names=tuple(sorted(chosen))),)
    written = ImageCache("shop", "c", lists=lists, planned=True, workload=str(WEB), plan_annotation=said)
    later = replace(snapshot, image_caches={written.key: written}, taken_at=snapshot.taken_at + 0.3)
    (second,) = plan(later, scenario.HISTORY, seed=1).demands
    assert chosen <= {one.name for one in second.nodes}


@pytest.mark.parametrize(("later", "caught", "outweighed"), [(30, 0.0, False), (32, 0.4, True), (32, 1.1, False)])
def test_pods_whose_nodes_are_chosen_afterwards_do_not_outweigh(later: int, caught: float, outweighed: bool) -> None:
    """Thirty of the later pods wait; ten that come at once were never steered."""
    coming = demand(Batch(0.0, 10), Batch(10.0, later, prefers=("warm",)))
    to = Steering(SteerState.STEERED, ("warm",), waits=30)
    assert is_outweighed(coming, to, later, {"warm": caught, "other": later - caught}) is outweighed


@cache
def played(surge: str | int, unavailable: str | int, seed: int) -> scenario.Run:
    """A rollout on nodes with room for none, one or two pods, 1.5 for each that runs, after two earlier revisions."""
    nodes = scenario.equal_nodes(60)
    names = Random(seed).sample(sorted(nodes), len(nodes))  # noqa: S311 - not cryptography
    load = [
        Pod("load", name, f"uid-load-{name}", node_name=name, shape=shape("load", cpu=7800 - 500 * (index % 3)))
        for index, name in enumerate(names)
    ]
    workload = deployment(
        template(scenario.OLD), replicas=scenario.REPLICAS, max_surge=surge, max_unavailable=unavailable
    )
    player = scenario.SteeredPlayer(nodes, workload, seed=seed, pull_seconds=1.0)
    player.load(load)
    player.reconcile()
    player.settle()
    player.change(template("registry.test/web:v1.1"))
    player.reconcile()
    player.settle()
    player.starts.clear()
    player.now += 600
    player.pull_seconds = PULL
    player.change(NEW)
    for seconds in (0.2, 0.4, 0.7, 1.1):
        player.at(seconds, lambda: None)
    run = scenario.Run(player, history=replace(scenario.HISTORY, pulls={scenario.NEW: Measured(PULL, 0.0)}))
    run.play()
    return run


@pytest.mark.parametrize(("surge", "unavailable"), [("25%", 0), (0, "25%")])
def test_on_full_nodes_the_pods_after_the_first_burst_start_warm_and_little_is_in_vain(
    surge: str | int, unavailable: str | int
) -> None:
    runs = [played(surge, unavailable, seed) for seed in (1, 2)]
    after = Counter(outcome for run in runs for _, outcome, _ in run.player.starts[scenario.REPLICAS // 4 :])
    assert after.total() == len(runs) * scenario.REPLICAS * 3 // 4
    assert after["prewarmed"] / (after.total() - after["present"]) >= 0.95, after
    ours = [
        image
        for run in runs
        for images in run.player.present.values()
        for image in images.values()
        if image.evidence is Evidence.OUR_PULL
    ]
    assert sum(image.used_at is None for image in ours) <= 0.15 * len(ours)
