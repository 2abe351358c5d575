"""Demands at every stage of a rollout, while a player acts as the Deployment controller."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import ContainerStatus
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy
from tests.support.clusters import WEB, cluster, deployment, replica_set, template
from tests.support.player import Player, varied_nodes

V1 = template("registry.test/web:v1")
V2 = template("registry.test/web:v2")
HISTORY = History(pulls={"registry.test/web:v2": Measured(20.0, 0.0)})


def wanted(snapshot: ClusterSnapshot, history: History = HISTORY) -> Demand | None:
    found = demands(snapshot, WEB, Policy(), history)
    assert len(found) <= 1
    return found[0] if found else None


def running(replicas: int = 8, **fields: Any) -> Player:
    """A Deployment of v1 that has been running for ten minutes."""
    player = Player(varied_nodes(12, 1), deployment(V1, replicas=replicas, **fields), pull_seconds=1.0)
    player.reconcile()
    player.settle()
    player.pull_seconds = 20.0
    player.now += 600
    return player


def test_a_steady_deployment_needs_nothing() -> None:
    assert wanted(running().snapshot()) is None


def test_a_changed_template_needs_all_pods_before_its_replica_set_exists() -> None:
    player = running()
    player.change(V2)
    demand = wanted(player.snapshot())
    assert demand is not None
    assert (demand.trigger, demand.pods, demand.images) == (Trigger.ROLLOUT, 8, ("registry.test/web:v2",))
    assert [batch.pods for batch in demand.batches[:2]] == [2, 2]
    assert demand.batches[2].needed_at == pytest.approx(player.now + 24.5, abs=2.5)
    assert len(demand.leaving) == 8
    assert demand.revision_labels == ()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_surge": 0, "max_unavailable": 1},
        {"max_surge": 1, "max_unavailable": 0},
        {"max_surge": "100%", "max_unavailable": 0},
        {"max_surge": 0, "max_unavailable": "50%"},
        {"strategy": UpdateStrategy.RECREATE},
    ],
)
def test_at_every_step_the_demand_is_what_is_still_to_come(fields: dict[str, Any]) -> None:
    player = running(**fields)
    player.change(V2)
    player.reconcile()
    steps = 0
    while True:
        snapshot = player.snapshot()
        demand = wanted(snapshot)
        new = [pod for pod in player.own() if pod.labels["pod-template-hash"] == "v2"]
        old = {pod.key for pod in player.own() if pod.labels["pod-template-hash"] == "v1"}
        staying = [pod for pod in player.own() if pod.key in old and pod.deleted_at is None]
        if staying or any(found.replicas for name, found in player.sets.items() if name == "v1"):
            assert demand is not None
        if demand is not None:
            assert demand.pods == 8 - len(new)
            assert set(demand.leaving) == old
            times = [batch.needed_at for batch in demand.batches]
            assert times == sorted(times)
            assert all(at >= snapshot.taken_at for at in times)
            assert sum(batch.leaving for batch in demand.batches) <= len(demand.leaving)
        steps += 1
        if not player.step():
            break
    assert steps > 20
    assert wanted(player.snapshot()) is None


def test_the_order_of_leaving_is_the_order_in_which_they_really_leave() -> None:
    player = running(replicas=12)
    player.change(V2)
    demand = wanted(player.snapshot())
    assert demand is not None
    player.reconcile()
    first = {pod.key for pod in player.own() if pod.deleted_at is not None}
    assert len(first) == 3
    assert set(demand.leaving[:3]) == first


def test_a_second_change_replaces_the_first() -> None:
    player = running()
    player.change(V2)
    player.reconcile()
    for _ in range(12):
        player.step()
    player.change(template("registry.test/web:v3"))
    demand = wanted(player.snapshot())
    assert demand is not None
    assert (demand.revision, demand.pods) == ("v3", 8)
    revisions = {player.pods[key].labels["pod-template-hash"] for key in demand.leaving}
    assert revisions == {"v1", "v2"}


def test_a_rollback_needs_the_old_revision_again_and_nothing_of_the_new() -> None:
    player = running()
    player.change(V2)
    player.reconcile()
    for _ in range(12):
        player.step()
    player.change(V1)
    demand = wanted(player.snapshot())
    assert demand is not None
    assert demand.images == ("registry.test/web:v1",)
    kept = sum(pod.labels["pod-template-hash"] == "v1" and pod.deleted_at is None for pod in player.own())
    assert demand.pods == 8 - kept
    assert demand.revision_labels == (("pod-template-hash", "v1"),)


def test_a_paused_deployment_with_a_changed_template_is_an_announcement() -> None:
    player = running()
    player.change(V2)
    player.workload = replace(player.workload, paused=True)
    demand = wanted(player.snapshot())
    assert demand is not None
    assert demand.pods == 8
    assert demand.batches[0].needed_at > player.now + 3000
    player.now += 1
    later = wanted(player.snapshot())
    assert later is not None
    assert later.batches == demand.batches


def test_recreate_needs_all_pods_when_the_old_ones_have_ended() -> None:
    player = running(strategy=UpdateStrategy.RECREATE)
    player.change(V2)
    before = wanted(player.snapshot())
    assert before is not None
    assert [(batch.pods, batch.leaving) for batch in before.batches] == [(8, 8)]
    player.reconcile()
    ending = wanted(player.snapshot())
    assert ending is not None
    assert ending.batches[0].needed_at == pytest.approx(player.now + player.stop_seconds)


def test_a_first_deployment_needs_all_pods_now() -> None:
    demand = wanted(cluster(workloads=[deployment(V1, replicas=3)]))
    assert demand is not None
    assert [(batch.needed_at, batch.pods) for batch in demand.batches] == [(1000.0, 3)]


def test_what_was_planned_stays_until_the_last_pods_are_ready() -> None:
    player = running(max_surge="100%", max_unavailable="50%")
    player.stop_seconds = 0.01
    player.change(V2)
    player.reconcile()
    while any(pod.labels["pod-template-hash"] == "v1" for pod in player.own()):
        player.step()
    assert any(pod.ready_at is None for pod in player.own())
    assert wanted(player.snapshot()) is None
    cache = ImageCache(
        "shop", "planned", planned=True, workload=str(WEB), plan_annotation='{"trigger":"Rollout","revision":"v2"}'
    )
    demand = wanted(replace(player.snapshot(), image_caches={cache.key: cache}))
    assert demand is not None
    assert demand.pods == 0
    player.settle()
    assert wanted(replace(player.snapshot(), image_caches={cache.key: cache})) is None


def test_a_rollout_lasts_until_its_last_pods_have_nodes() -> None:
    """Where they are steered, the labels are to be there when the scheduler looks."""
    player = running(max_surge=0, max_unavailable="100%")
    player.stop_seconds = 3.0
    player.change(V2)
    player.reconcile()
    demand = wanted(player.snapshot())
    assert demand is not None
    assert demand.pods == 0
    while not all(pod.node_name for pod in player.own()):
        player.step()
    assert wanted(player.snapshot()) is None


def test_all_images_of_the_pod_are_needed_but_excluded_ones() -> None:
    new = template("registry.test/web:v2", "registry.test/proxy:v1", "registry.test/debug:v1")
    annotations = {"prewarm.dev/enabled": "true", "prewarm.dev/exclude-containers": "c2"}
    demand = wanted(cluster(workloads=[deployment(new, annotations=annotations)]))
    assert demand is not None
    assert demand.images == ("registry.test/web:v2", "registry.test/proxy:v1")


def test_only_excluded_containers_need_nothing() -> None:
    annotations = {"prewarm.dev/enabled": "true", "prewarm.dev/exclude-containers": "c0"}
    assert wanted(cluster(workloads=[deployment(V2, annotations=annotations)])) is None


def test_later_pods_are_needed_when_slow_starters_are_ready() -> None:
    player = running()
    player.change(V2)
    demand = wanted(player.snapshot(), History(pulls={"registry.test/web:v2": Measured(300.0, 0.0)}))
    assert demand is not None
    assert demand.batches[2].needed_at >= player.now + 300


def test_min_ready_seconds_delay_what_comes_next() -> None:
    player = running(min_ready_seconds=120)
    player.workload = replace(player.workload, min_ready_seconds=120)
    player.change(V2)
    demand = wanted(player.snapshot())
    assert demand is not None
    assert demand.batches[2].needed_at >= player.now + 140


def test_a_policy_without_rollouts_plans_none() -> None:
    player = running()
    player.change(V2)
    assert demands(player.snapshot(), WEB, Policy(rollout=False), HISTORY) == ()


def test_an_overdue_burst_still_leaves_time_for_what_follows() -> None:
    player = running()
    player.change(V2)
    player.reconcile()
    for _ in range(12):
        player.step()
    player.now += 200
    demand = wanted(player.snapshot())
    assert demand is not None
    assert demand.batches[0].needed_at >= player.now + 2


def test_a_finished_pod_of_the_old_revision_does_not_keep_a_rollout_open() -> None:
    found = deployment(V2, replicas=0)
    assert wanted(cluster(workloads=[found], replica_sets=[replica_set(found, V1, 0)])) is None


def test_containers_that_run_tell_when_their_pod_will_be_ready() -> None:
    player = running()
    player.change(V2)
    player.reconcile()
    for _ in range(12):
        player.step()
    started = (ContainerStatus("c0", started_at=player.now - 1),)
    for pod in player.own():
        if pod.labels["pod-template-hash"] == "v2":
            player.pods[pod.key] = replace(pod, containers=started)
    demand = wanted(player.snapshot())
    assert demand is not None
    assert demand.batches[0].needed_at <= player.now + 5
