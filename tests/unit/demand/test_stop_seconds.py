"""Where pods take long to stop, what waits for their end comes that much later."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.demand.canary_steps import canary_batches
from prewarm.demand.progress import Bounds, Counts, Times, rolling_batches
from prewarm.demand.shapes import stop_seconds
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.progressive import CanaryStep, InPlace, Rollout, api_kind
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey
from tests.support.clusters import WEB, cluster, deployment, node, template
from tests.support.player import Player, varied_nodes

V1 = template("registry.test/web:v1")
V2 = template("registry.test/web:v2")
NOW = 1000.0
HISTORY = History(pulls={"registry.test/web:v2": Measured(1.0, 0.0)})
SLOW = replace(HISTORY, stopping={str(WEB): Measured(15.0, 0.0)})


def wanted(snapshot: ClusterSnapshot, key: WorkloadKey = WEB, history: History = HISTORY) -> Demand:
    (found,) = demands(snapshot, key, Policy(), history)
    return found


def times(demand: Demand) -> list[float]:
    return [batch.needed_at for batch in demand.batches]


@pytest.mark.parametrize(
    ("stops", "history", "expected"),
    [
        ((), HISTORY, 1.0),
        ((), SLOW, 15.0),
        ((8.0, 9.0, 300.0), SLOW, 9.0),
        ((300.0,), SLOW, 15.0),
        ((8.0,), HISTORY, 8.0),
        ((8.0, 300.0), HISTORY, 8.0),
    ],
    ids=["never seen", "remembered", "one of three hangs", "only one, which hangs", "first of all", "one of two hangs"],
)
def test_pods_take_as_long_to_stop_as_most_did(stops: tuple[float, ...], history: History, expected: float) -> None:
    workload = deployment(V1)
    snapshot = replace(cluster(workloads=[workload]), stops={WEB: stops} if stops else {})
    assert stop_seconds(snapshot, history, workload) == expected


def slow(nodes: int = 12, cores: int = 0, **fields: Any) -> Player:
    """A Deployment of eight pods of v1 that take 15 s to stop, which one rollout has shown; images come in 1 s."""
    room = {f"n{index}": node(f"n{index}", cpu=cores) for index in range(nodes)} if cores else varied_nodes(nodes, 1)
    workload = deployment(template("registry.test/web:v0"), replicas=8, **fields)
    player = Player(room, workload, pull_seconds=1.0, stop_seconds=15.0)
    for pod_template in (workload.template, V1):
        player.change(pod_template)
        player.reconcile()
        player.settle()
        player.now += 600
    player.change(V2)
    return player


def test_a_recreated_deployment_comes_when_the_last_old_pod_has_stopped() -> None:
    player = slow(strategy=UpdateStrategy.RECREATE)
    predicted = [times(wanted(player.snapshot()))]
    player.reconcile()
    for _ in range(2):
        predicted.append(times(wanted(player.snapshot())))
        player.now += 5
    player.settle()
    created = {pod.created_at for pod in player.own()}
    assert [pytest.approx([came]) for came in created] * 3 == predicted


def test_on_full_nodes_each_pod_waits_for_the_end_of_an_old_one() -> None:
    player = slow(nodes=4, cores=1, max_surge=0, max_unavailable=2)
    player.reconcile()
    while not all(pod.unschedulable for pod in player.own() if pod.labels["pod-template-hash"] == "v2"):
        player.step()
    demand = wanted(player.snapshot())
    there = {pod.key for pod in player.own()}
    player.settle()
    came = sorted(pod.scheduled_at or 0.0 for pod in player.own() if pod.key not in there)
    predicted = [batch.needed_at for batch in demand.batches for _ in range(batch.pods)]
    assert predicted == pytest.approx(came, abs=5.0)
    assert came[-1] - NOW > 45
    assert [batch.leaving > 0 for batch in demand.batches] == [True] * len(demand.batches)


def test_where_there_is_room_pods_come_before_old_ones_have_stopped() -> None:
    player = slow(max_surge=0, max_unavailable=2)
    player.reconcile()
    demand = wanted(player.snapshot())
    there = {pod.key for pod in player.own()}
    player.settle()
    came = sorted(pod.created_at for pod in player.own() if pod.key not in there)
    predicted = [batch.needed_at for batch in demand.batches for _ in range(batch.pods)]
    assert predicted == pytest.approx(came, abs=5.0)
    assert demand.batches[0].leaving == 0


def test_that_old_pods_had_to_wait_for_a_node_says_nothing_of_today() -> None:
    player = slow(max_surge=0, max_unavailable=2)
    expected = times(wanted(player.snapshot()))
    for pod in player.own():
        player.pods[pod.key] = replace(pod, created_at=(pod.scheduled_at or 0.0) - 60)
    assert times(wanted(player.snapshot())) == expected


def test_a_pod_that_is_stopping_while_a_rollout_waits_to_be_resumed_keeps_it_no_longer() -> None:
    player = slow()
    gone = player.own()[0]
    player.pods[gone.key] = replace(gone, stopping_since=player.now - 600, deleted_at=player.now - 570)
    player.workload = replace(player.workload, paused=True)
    later = times(wanted(player.snapshot()))
    assert max(later) - min(later) < 100


def test_pods_without_room_of_a_first_rollout_are_expected_once_old_ones_have_stopped() -> None:
    """Nothing was measured yet: a second is assumed, then as much again as they are late."""
    player = slow(nodes=4, cores=1, max_surge=0, max_unavailable=2)
    player.stops.clear()
    player.reconcile()
    while player.now < min(pod.stopping_since or player.now for pod in player.own()) + 9:
        player.step()
    first = wanted(player.snapshot()).batches[0]
    assert first.needed_at - player.now > 8
    assert first.leaving == 3


def test_old_pods_count_as_gone_once_they_have_stopped() -> None:
    counts = Counts(4, 0, 0, 4, 4)
    quick, late = (rolling_batches(counts, Bounds(1, 0), 0.0, Times((), (), 5.0, 5.0, stop)) for stop in (1.0, 12.0))
    assert [(batch.needed_at, batch.leaving) for batch in quick] == [(0, 0), (5, 0), (10, 1), (15, 1)]
    assert [(batch.needed_at, batch.leaving) for batch in late] == [(0, 0), (5, 0), (10, 0), (15, 0)]


@pytest.mark.parametrize(("stop", "rests"), [(1.0, True), (15.0, False)])
def test_a_pause_shorter_than_pods_take_to_stop_is_no_rest(stop: float, rests: bool) -> None:
    workload = replace(deployment(V2, replicas=10), max_surge=2, max_unavailable=0)
    state = Rollout(steps=(CanaryStep(weight=20), CanaryStep(pause_seconds=12.0), CanaryStep(weight=60)))
    batches = canary_batches(workload, state, Counts(10, 0, 0, 10, 10), NOW, Times((), (), 5.0, 5.0, stop))
    assert any(batch.after_rest for batch in batches) == rests


def owned(kind: str, number: int, **fields: Any) -> Pod:
    found = Pod(
        "shop",
        f"web-{number}",
        f"uid-web-{number}",
        node_name=f"n{number}",
        labels={**V1.labels, "controller-revision-hash": "web-1"},
        owner=OwnerReference(api_kind(kind), "web", "uid-web"),
        shape=V1.shape,
        phase=PodPhase.RUNNING,
        created_at=100.0,
        ready_at=105.0,
    )
    return replace(found, **fields)


def one_by_one(kind: str, *pods: Pod, stops: tuple[float, ...] = (), **fields: Any) -> list[float]:
    """Seconds after which the next pods of a workload come of which one is replaced at a time."""
    values: dict[str, Any] = {
        "max_surge": 0,
        "max_unavailable": 1,
        "generation": 2,
        "observed_generation": 2,
        "update_revision": "web-2",
        **fields,
    }
    key = WorkloadKey(kind, "shop", "web")
    workload: Workload = deployment(V2, replicas=3, key=key, **values)
    pods = pods or tuple(owned(kind, number) for number in range(3))
    found = cluster([node(f"n{number}") for number in range(3)], pods, [workload], now=NOW)
    return [at - NOW for at in times(wanted(replace(found, stops={key: stops} if stops else {}), key))]


def test_each_ordinal_of_a_stateful_set_waits_for_the_end_of_its_predecessor() -> None:
    """Ten seconds from creation to ready are assumed."""
    assert one_by_one("StatefulSet") == [1, 12, 23]
    assert one_by_one("StatefulSet", stops=(15.0, 15.0)) == [15, 40, 65]


def test_an_ordinal_that_stops_already_comes_again_when_it_should_have_stopped() -> None:
    told = owned("StatefulSet", 2, deleted_at=NOW + 26, stopping_since=NOW - 4)
    pods = (owned("StatefulSet", 0), owned("StatefulSet", 1), told)
    assert one_by_one("StatefulSet", *pods, stops=(15.0, 15.0))[0] == 11


def test_a_daemon_sets_next_node_waits_for_the_end_of_a_pod_unless_its_successor_came_before() -> None:
    assert one_by_one("DaemonSet", stops=(15.0, 15.0)) == [0, 25, 50]
    assert one_by_one("DaemonSet", stops=(15.0, 15.0), max_surge=1, max_unavailable=0) == [0, 10, 20]


def test_what_is_updated_in_place_stops_before_it_starts_again() -> None:
    fields: dict[str, Any] = {"in_place": InPlace.IF_POSSIBLE, "api_version": "apps.kruise.io/v1alpha1"}
    assert one_by_one("CloneSet", **fields) == [0, 11, 21]
    assert one_by_one("CloneSet", stops=(15.0, 15.0), **fields) == [0, 26, 51]
