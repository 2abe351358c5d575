"""What a rollout replaces stays where its pods ran until the rollout is judged, so that a rollback is warm."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.api.image_cache import decode_image_cache
from prewarm.delivery import deliver
from prewarm.demand import previous_demands
from prewarm.history import History
from prewarm.model.image_caches import ImageCache, Policy, PolicyMode
from prewarm.model.intents import Apply, Delete
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import ContainerPhase, ContainerStatus, OwnerReference, Pod, PodPhase
from prewarm.model.progressive import Rollout
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey
from prewarm.planning import plan
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, template
from tests.support.player import Player, varied_nodes

V1, V2 = template("registry.test/web:v1"), template("registry.test/web:v2")
HOLDS = Policy(hold_seconds=3600.0)
IMAGE = "registry.test/web:v1"


def wanted(snapshot: ClusterSnapshot, policy: Policy = HOLDS, key: WorkloadKey = WEB) -> tuple[Demand, ...]:
    return previous_demands(snapshot, key, policy, frozenset())


def running(**fields: Any) -> Player:
    """A Deployment of v1 that has been running for ten minutes."""
    player = Player(varied_nodes(12, 1), deployment(V1, replicas=8, **fields), pull_seconds=1.0)
    player.reconcile()
    player.settle()
    player.now += 600
    return player


def nodes_of(demand: Demand) -> set[str]:
    return {name for batch in demand.batches for name in batch.nodes}


def with_policy(snapshot: ClusterSnapshot, *caches: ImageCache, policy: Policy = HOLDS) -> ClusterSnapshot:
    return replace(snapshot, policies={"default": policy}, image_caches={cache.key: cache for cache in caches})


def delivered(snapshot: ClusterSnapshot) -> list[ImageCache]:
    """The ImageCaches for a rollback as they are written."""
    intents = deliver(plan(snapshot, History()), snapshot)
    found = [decode_image_cache(dict(intent.manifest)) for intent in intents if isinstance(intent, Apply)]
    return [replace(cache, uid=f"uid-{cache.name}") for cache in found if cache.hold_present]


def test_nothing_is_kept_while_no_rollout_is_under_way_or_no_policy_holds() -> None:
    player = running()
    assert wanted(player.snapshot()) == ()
    player.change(V2)
    assert wanted(player.snapshot(), Policy()) == ()
    assert wanted(player.snapshot(), replace(HOLDS, rollout=False)) == ()


def test_what_is_replaced_is_kept_where_its_pods_run_and_ran_until_all_new_ones_are_ready() -> None:
    player = running()
    ran = {pod.node_name for pod in player.own()}
    player.change(V2)
    (cache,) = delivered(with_policy(player.snapshot()))
    assert (cache.lists[0].images, set(cache.lists[0].node_names or ())) == ((IMAGE,), ran)
    assert cache.hold_seconds == 3600.0
    player.reconcile()
    while player.step():
        snapshot = with_policy(player.snapshot(), cache)
        ready = sum(pod.ready_at is not None for pod in player.own() if pod.labels["pod-template-hash"] == "v2")
        old = [pod for pod in player.own() if pod.labels["pod-template-hash"] == "v1" and pod.deleted_at is None]
        if ready < 8 or old:
            (demand,) = wanted(snapshot)
            assert (demand.trigger, demand.images) == (Trigger.ROLLBACK, (IMAGE,))
            assert nodes_of(demand) <= ran
            again = [intent for intent in deliver(plan(snapshot, History()), snapshot) if intent.name == cache.name]
            assert again == [], "the nodes of pods that are gone stay as long as the image is there"
        else:
            assert wanted(snapshot) == ()
            withdrawn = [i for i in deliver(plan(snapshot, History()), snapshot) if i.name == cache.name]
            assert [type(intent) for intent in withdrawn] == [Delete]
    assert wanted(with_policy(player.snapshot(), cache)) == ()


def test_a_node_that_lost_the_image_is_given_up_and_pulls_nothing_again() -> None:
    player = running()
    player.change(V2)
    (cache,) = delivered(with_policy(player.snapshot()))
    player.reconcile()
    nodes = cache.lists[0].node_names or ()

    def still_used() -> set[str]:
        return {pod.node_name for pod in player.own() if pod.labels["pod-template-hash"] == "v1"}

    while still_used().issuperset(nodes):
        player.step()
    lost = next(name for name in nodes if name not in still_used())
    del player.present[lost][IMAGE]
    snapshot = with_policy(player.snapshot(), cache)
    (written,) = [i for i in deliver(plan(snapshot, History()), snapshot) if i.name == cache.name]
    assert isinstance(written, Apply)
    assert lost not in str(written.manifest["spec"])


def test_ready_for_min_ready_seconds_is_what_counts() -> None:
    found = deployment(V2, replicas=1, min_ready_seconds=60)
    old, new = replica_set(found, V1, 0), replica_set(found, V2, 1)
    there = pod_of(new, "new", ready_at=950.0)
    gone = replace(pod_of(old, "old"), deleted_at=1001.0)
    snapshot = cluster([node("n0")], [there, gone], [found], [old, new])
    assert len(wanted(snapshot)) == 1
    assert wanted(replace(snapshot, taken_at=1011.0)) == ()


def test_after_a_rollback_it_is_the_abandoned_revision_that_is_replaced() -> None:
    player = running()
    player.change(V2)
    (cache,) = delivered(with_policy(player.snapshot()))
    player.reconcile()
    while not any(pod.ready_at for pod in player.own() if pod.labels["pod-template-hash"] == "v2"):
        player.step()
    player.change(V1)
    found = wanted(with_policy(player.snapshot(), cache))
    assert [demand.images for demand in found] == [("registry.test/web:v2",)]


def test_of_many_changes_in_a_row_two_are_kept() -> None:
    found = deployment(template("registry.test/web:v9"), replicas=4)
    sets = [replica_set(found, template(f"registry.test/web:v{number}"), 1) for number in range(1, 5)]
    pods = [pod_of(made, f"p{index}", node_name=f"n{index}") for index, made in enumerate(sets)]
    pods.append(pod_of(sets[2], "more", node_name="n4"))
    found_demands = wanted(cluster([node(f"n{number}") for number in range(5)], pods, [found], sets))
    assert [demand.images for demand in found_demands] == [("registry.test/web:v3",), ("registry.test/web:v1",)]


def test_a_revision_that_never_became_ready_is_not_kept() -> None:
    found = deployment(template("registry.test/web:v3"), replicas=1)
    old = replica_set(found, V2, 1)
    snapshot = cluster([node("n0")], [pod_of(old, "p", ready_at=None)], [found], [old])
    assert wanted(snapshot) == ()


@pytest.mark.parametrize("fields", [{"paused": True}, {"replicas": 0}])
def test_a_change_that_replaces_nothing_yet_keeps_nothing(fields: dict[str, Any]) -> None:
    found = deployment(V2, **{"replicas": 1, **fields})
    old = replica_set(found, V1, 1)
    assert wanted(cluster([node("n0")], [pod_of(old, "p")], [found], [old])) == ()


def test_images_that_both_revisions_have_need_no_keeping() -> None:
    both = template("registry.test/web:v1", "registry.test/proxy:v1")
    found = deployment(template("registry.test/web:v2", "docker.io/library/busybox:1"), replicas=1)
    old = replica_set(found, template("registry.test/web:v1", "busybox:1"), 1)
    (demand,) = wanted(cluster([node("n0")], [pod_of(old, "p")], [found], [old]))
    assert demand.images == (IMAGE,)
    assert len(both.shape.images) == 2


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "CloneSet"])
def test_workloads_without_replica_sets_are_told_by_their_pods_and_then_by_the_cache(kind: str) -> None:
    key = WorkloadKey(kind, "shop", "web")
    found = deployment(V2, replicas=2, key=key, max_unavailable=1, strategy=UpdateStrategy.ROLLING_UPDATE)
    before = replace(found, template=V1)
    nodes = [node("n0"), node("n1")]
    old = [pod_of(before, f"web-{number}", node_name=f"n{number}", revision="web-1") for number in range(2)]
    (demand,) = wanted(cluster(nodes, old, [found]), key=key)
    assert (demand.images, nodes_of(demand)) == ((IMAGE,), {"n0", "n1"})
    (cache,) = delivered(cluster(nodes, old, [found], policies=[HOLDS]))
    new = [pod_of(found, "web-0", node_name="n0", revision="web-2")]
    starting = pod_of(found, "web-1", node_name="n1", ready_at=None, revision="web-2")
    rolled = cluster(nodes, [*new, starting], [found], policies=[HOLDS], image_caches=[cache])
    (kept,) = wanted(rolled, key=key)
    assert (kept.images, kept.revision, nodes_of(kept)) == ((IMAGE,), "web-1", set())
    done = cluster(nodes, [*new, replace(starting, ready_at=900.0)], [found], policies=[HOLDS], image_caches=[cache])
    assert wanted(done, key=key) == ()


def test_an_argo_rollout_is_judged_by_its_controller() -> None:
    key = WorkloadKey("Rollout", "shop", "web")
    found = deployment(V2, replicas=1, key=key, rollout=Rollout(stable_hash="v1", current_hash="v2"))
    old, new = (labelled(replica_set(found, made, count)) for made, count in ((V1, 1), (V2, 1)))
    pods = [pod_of(old, "old"), pod_of(new, "new")]
    snapshot = cluster([node("n0")], pods, [found], [old, new])
    assert [demand.images for demand in wanted(snapshot, key=key)] == [(IMAGE,)]
    stable = replace(found, rollout=Rollout(stable_hash="v2", current_hash="v2"))
    assert wanted(cluster([node("n0")], pods[1:], [stable], [old, new]), key=key) == ()


def test_under_a_shadow_policy_it_is_shown_and_not_written() -> None:
    player = running()
    player.change(V2)
    snapshot = with_policy(player.snapshot(), policy=replace(HOLDS, mode=PolicyMode.SHADOW))
    assert any(entry.demand.trigger is Trigger.ROLLBACK and entry.shadow for entry in plan(snapshot, History()).demands)
    assert delivered(snapshot) == []


def labelled(made: Workload) -> Workload:
    return replace(made, labels={**made.labels, "rollouts-pod-template-hash": made.template_hash})


def pod_of(owner: Workload, name: str, *, revision: str = "", **fields: Any) -> Pod:
    """A pod that has been ready for long, unless the fields say otherwise."""
    labels = {**owner.template.labels, **({"controller-revision-hash": revision} if revision else {})}
    values: dict[str, Any] = {
        "node_name": "n0",
        "labels": labels,
        "owner": OwnerReference(owner.key.kind, owner.key.name, owner.uid),
        "shape": owner.template.shape,
        "phase": PodPhase.RUNNING,
        "created_at": 400.0,
        "ready_at": 500.0,
        "containers": tuple(
            ContainerStatus(container.name, ContainerPhase.RUNNING, container.image, started_at=450.0)
            for container in owner.template.shape.containers
        ),
        **fields,
    }
    return Pod("shop", name, f"uid-{name}", **values)
