"""What delivery writes for a plan, and what it takes back."""

import msgspec
from msgspec.structs import replace

from prewarm.api.plan_annotation import decode_summary
from prewarm.delivery import DeliveryMemory, deliver
from prewarm.delivery.deliver import NEEDED_BY_TOLERANCE_SECONDS
from prewarm.delivery.planned_cache import cache_key
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import PullPolicy
from prewarm.model.intents import IMAGE_CACHES, Apply, Delete
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.plans import DemandPlan, Plan, Skip, SkipReason, Trigger
from prewarm.model.pods import ContainerShape, Pod, PodShape, PodTemplate, Toleration
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey
from tests.support.clusters import WEB, cluster, deployment, node, template
from tests.support.plans import applied, demand, demand_plan, node_lists

OLD = template("registry.example/web:v1")
NEW = template("registry.example/web:v2")
WEB_NEW = deployment(NEW)
NODES = [node(f"node-{index}") for index in range(6)]


def snapshot_with(*caches: ImageCache, **fields: object) -> ClusterSnapshot:
    return cluster(NODES, workloads=[WEB_NEW], image_caches=caches, **fields)  # type: ignore[arg-type]


def plan_for(*names: str, **fields: object) -> Plan:
    return Plan((demand_plan(demand(WEB_NEW), names, **fields),))  # type: ignore[arg-type]


def in_force(snapshot: ClusterSnapshot, plan: Plan) -> ClusterSnapshot:
    return applied(snapshot, deliver(plan, snapshot))


def test_a_demand_becomes_an_image_cache_owned_by_its_workload() -> None:
    shape = PodShape(
        containers=(ContainerShape("web", "registry.example/web:v2"), ContainerShape("side", "side:v1")),
        service_account="web",
        pull_secrets=("credentials",),
        tolerations=(Toleration("gpu", "Exists"),),
    )
    workload = deployment(PodTemplate({}, shape))
    snapshot = cluster(NODES, workloads=[workload])
    plan = Plan((demand_plan(demand(workload, needed_at=1010.5), ["node-2", "node-1"]),))
    (intent,) = deliver(plan, snapshot)
    assert isinstance(intent, Apply)
    assert (intent.resource, intent.namespace, intent.subresource) == (IMAGE_CACHES, "shop", "")
    metadata = msgspec.to_builtins(intent.manifest["metadata"])
    assert intent.name == metadata["name"]
    assert intent.name.startswith("prewarm-deploy-web-")
    assert metadata["labels"] == {"prewarm.dev/planned": "true", "app.kubernetes.io/managed-by": "prewarm"}
    assert metadata["ownerReferences"] == [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "uid-web", "controller": False}
    ]
    assert metadata["annotations"]["prewarm.dev/workload"] == "deployment/shop/web"
    assert intent.manifest["spec"] == {
        "cacheSpec": [
            {"images": ["registry.example/web:v2", "side:v1"], "nodeNames": ["node-2", "node-1"]},
        ],
        "imagePullPolicy": "IfNotPresent",
        "imagePullSecrets": [{"name": "credentials"}],
        "serviceAccountName": "web",
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priority": 100,
        "neededBy": "1970-01-01T00:16:50.500000Z",
    }
    summary = decode_summary(metadata["annotations"]["prewarm.dev/plan"])
    assert summary is not None
    assert (summary.trigger, summary.pods, summary.predictability, summary.coverage) == ("Rollout", 4, 0.9, 1.0)
    assert list(summary.nodes) == ["node-2", "node-1"]


def test_what_stands_already_is_not_written_again() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1", "node-2"))
    assert deliver(plan_for("node-1", "node-2"), snapshot) == ()


def test_another_order_or_probability_is_no_reason_to_write() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1", "node-2"))
    assert deliver(plan_for("node-2", "node-1"), snapshot) == ()


def test_that_nodes_are_to_draw_the_pods_is_said_even_if_nothing_else_changes() -> None:
    """The gate goes by what the ImageCache says."""
    plain = plan_for("node-1")
    drawn = replace(plain, demands=(replace(plain.demands[0], drawn=True),))
    (intent,) = deliver(drawn, in_force(snapshot_with(), plain))
    assert isinstance(intent, Apply)
    (intent,) = deliver(plain, in_force(snapshot_with(), drawn))
    assert isinstance(intent, Apply)


def test_nothing_is_written_where_nothing_is_missing() -> None:
    assert deliver(plan_for("node-1", warm=["node-1"]), snapshot_with()) == ()


def test_a_cache_in_force_stays_once_everything_is_there() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    assert deliver(plan_for("node-1", warm=["node-1"]), snapshot) == ()


def test_a_new_node_joins_and_an_unpulled_one_is_let_go() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1", "node-2"))
    snapshot = in_force(snapshot, plan_for("node-3", "node-2"))
    assert node_lists(snapshot.image_caches) == [("node-3", "node-2")]


def test_a_node_stays_while_its_pull_is_under_way_or_done() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1", "node-2", "node-3", "node-4"))
    (cache,) = snapshot.image_caches.values()
    labels = {"prewarm.dev/puller": "true", "prewarm.dev/cache-uid": cache.uid}
    puller = Pod("shop", "puller", "uid-p", node_name="node-2", labels=labels)
    warm = PresentImage("registry.example/web:v2", Evidence.OUR_PULL, 900.0)
    record = NodeImages("node-3", "uid-node-3", "boot-node-3", (warm,))
    later = cluster(NODES, [puller], [WEB_NEW], image_caches=[cache], node_images=[record])
    later = in_force(later, plan_for("node-1"))
    assert node_lists(later.image_caches) == [("node-1", "node-2", "node-3")]


def test_a_kept_node_that_is_gone_is_let_go() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1", "gone"))
    assert node_lists(in_force(snapshot, plan_for("node-1")).image_caches) == [("node-1",)]


def test_a_new_revision_withdraws_the_old_one() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    newer = deployment(template("registry.example/web:v3"))
    snapshot = replace(snapshot, workloads={newer.key: newer})
    intents = deliver(Plan((demand_plan(demand(newer), ["node-1"]),)), snapshot)
    assert [type(intent) for intent in intents] == [Apply, Delete]
    (cache,) = applied(snapshot, intents).image_caches.values()
    assert cache.lists[0].images == ("registry.example/web:v3",)


def test_a_demand_that_is_over_withdraws_its_cache() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    (cache,) = snapshot.image_caches.values()
    assert deliver(Plan(), snapshot) == (Delete(IMAGE_CACHES, "shop", cache.name, uid=cache.uid),)


def test_a_plan_for_others_leaves_the_cache_alone() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    other = WorkloadKey("Deployment", "shop", "other")
    assert deliver(Plan(only=(other,)), snapshot) == ()
    assert deliver(Plan(), snapshot, only=[other]) == ()
    assert len(deliver(Plan(only=(WEB,)), snapshot)) == 1


def test_a_cache_whose_owner_is_gone_or_another_goes_whatever_is_planned() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    reborn = replace(WEB_NEW, uid="uid-reborn")
    for workloads in ({}, {WEB: reborn}):
        (intent,) = deliver(Plan(only=()), replace(snapshot, workloads=workloads))
        assert isinstance(intent, Delete)


def test_a_plan_made_for_a_workload_that_is_going_is_not_delivered() -> None:
    going = replace(snapshot_with(), workloads={WEB: replace(WEB_NEW, deleted_at=999.0)})
    assert deliver(plan_for("node-1"), going) == ()


def test_shadow_writes_nothing_and_withdraws() -> None:
    assert deliver(plan_for("node-1", shadow=True), snapshot_with()) == ()
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    (intent,) = deliver(plan_for("node-1", shadow=True), snapshot)
    assert isinstance(intent, Delete)


def test_a_hold_is_written_and_a_changed_one_is_written_again() -> None:
    def held(seconds: float | None) -> Plan:
        (entry,) = plan_for("node-1").demands
        return Plan((replace(entry, hold_seconds=seconds),))

    snapshot = in_force(snapshot_with(), held(7200.0))
    (cache,) = snapshot.image_caches.values()
    assert cache.hold_seconds == 7200.0
    assert deliver(held(7200.0), snapshot) == ()
    for seconds in (60.0, None):
        snapshot = in_force(snapshot, held(seconds))
        (cache,) = snapshot.image_caches.values()
        assert cache.hold_seconds == seconds


def test_what_a_person_asked_for_is_not_delivered() -> None:
    plan = Plan((demand_plan(demand(WEB_NEW, trigger=Trigger.WHAT_IF), ["node-1"]),))
    assert deliver(plan, snapshot_with()) == ()


def test_hand_written_caches_are_never_touched() -> None:
    taken = cache_key(demand(WEB_NEW))
    written = ImageCache("shop", "base", uid="1", lists=(ImageList(("a",)),))
    same_name = ImageCache(*taken, uid="2", lists=(ImageList(("a",)),))
    snapshot = snapshot_with(written, same_name)
    assert deliver(plan_for("node-1"), snapshot) == ()
    assert deliver(Plan(), snapshot) == ()


def test_a_cache_that_is_being_deleted_is_left_alone() -> None:
    snapshot = in_force(snapshot_with(), plan_for("node-1"))
    (cache,) = snapshot.image_caches.values()
    going = snapshot_with(replace(cache, deleted_at=1000.0))
    assert deliver(plan_for("node-1", "node-2"), going) == ()
    assert deliver(Plan(), going) == ()


def test_an_earlier_need_is_written_and_a_later_one_is_not() -> None:
    def at(needed_at: float) -> Plan:
        entry: DemandPlan = demand_plan(demand(WEB_NEW, needed_at=needed_at), ["node-1"])
        return Plan((entry,))

    snapshot = in_force(snapshot_with(), at(2000.0))
    assert deliver(at(3000.0), snapshot) == ()
    assert deliver(at(2000.0 - NEEDED_BY_TOLERANCE_SECONDS), snapshot) == ()
    assert len(deliver(at(1900.0), snapshot)) == 1


def test_images_that_the_plan_skips_everywhere_are_left_out() -> None:
    workload = deployment(template("registry.example/web:v2", "local/tool:v1"))
    entry = demand_plan(demand(workload), ["node-1"])
    entry = replace(entry, skips=(Skip(SkipReason.PULL_POLICY_NEVER, WEB, image="local/tool:v1"),))
    snapshot = cluster(NODES, workloads=[workload])
    (cache,) = applied(snapshot, deliver(Plan((entry,)), snapshot)).image_caches.values()
    assert cache.lists[0].images == ("registry.example/web:v2",)


def test_a_container_that_always_pulls_makes_the_cache_always_pull() -> None:
    shape = PodShape(containers=(ContainerShape("web", "web:latest", PullPolicy.ALWAYS),))
    workload = deployment(PodTemplate({}, shape))
    snapshot = cluster(NODES, workloads=[workload])
    plan = Plan((demand_plan(demand(workload), ["node-1"]),))
    snapshot = in_force(snapshot, plan)
    (cache,) = snapshot.image_caches.values()
    assert cache.pull_policy is PullPolicy.ALWAYS
    assert deliver(plan, snapshot) == ()


def test_names_stay_short_and_tell_revisions_and_triggers_apart() -> None:
    long = deployment(NEW, key=WorkloadKey("Deployment", "shop", "w" * 250))
    keys = {
        cache_key(demand(long)),
        cache_key(demand(long, revision="other")),
        cache_key(demand(long, trigger=Trigger.SCALE_OUT)),
        cache_key(demand(replace(long, uid="reborn"))),
    }
    assert len(keys) == 4
    assert all(len(name) == 63 for _, name in keys)


def test_a_write_that_is_not_visible_yet_is_not_repeated_until_patience_ends() -> None:
    snapshot, memory = snapshot_with(), DeliveryMemory()
    intents = deliver(plan_for("node-1"), snapshot, memory=memory)
    assert len(intents) == 1
    assert deliver(plan_for("node-1"), snapshot, memory=memory) == ()
    assert deliver(plan_for("node-1"), replace(snapshot, taken_at=1100.0), memory=memory) == intents
    memory.forget(cache_key(demand(WEB_NEW)))
    assert deliver(plan_for("node-1"), snapshot, memory=memory) == intents


def test_a_deletion_that_is_not_visible_yet_is_not_repeated_and_the_cache_may_come_back() -> None:
    snapshot, memory = in_force(snapshot_with(), plan_for("node-1")), DeliveryMemory()
    assert len(deliver(Plan(), snapshot, memory=memory)) == 1
    assert deliver(Plan(), snapshot, memory=memory) == ()
    (intent,) = deliver(plan_for("node-1"), snapshot, memory=memory)
    assert isinstance(intent, Apply)
