from typing import Any

from msgspec.structs import replace

from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.batch import Schedule
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.images import PullPolicy
from prewarm.model.nodes import Evidence, Node, NodeImages, NodeImageStatus, PresentImage
from prewarm.model.plans import DemandPlan, SkipReason
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.planning import Planner, plan
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, template

V1, V2 = template("registry.test/web:v1"), template("registry.test/web:v2")
IMAGE = "registry.test/web:v2"
SMALL = "registry.test/proxy:v1"
HISTORY = History(pulls={IMAGE: Measured(20.0, 0.0), SMALL: Measured(1.0, 0.0)})


def nodes(count: int = 4, **fields: Any) -> list[Node]:
    """Nodes of falling size: n0 is the emptiest."""
    return [node(f"n{i}", cpu=32 - 4 * i, memory=128 - 16 * i, **fields) for i in range(count)]


def announced(*, replicas: int = 2, changed: Any = V2, **fields: Any) -> Workload:
    """A paused Deployment whose template was changed: all pods come later."""
    return deployment(changed, replicas=replicas, paused=True, **fields)


def planned(snapshot: ClusterSnapshot, history: History = HISTORY) -> DemandPlan:
    (found,) = plan(snapshot, history).demands
    return found


def chosen(found: DemandPlan) -> list[str]:
    return [entry.name for entry in found.nodes]


def reasons(found: DemandPlan) -> dict[str, SkipReason]:
    return {skip.node or skip.image: skip.reason for skip in found.skips}


def present(name: str, image: str, evidence: Evidence = Evidence.OUR_PULL, **fields: Any) -> NodeImages:
    return NodeImages(name, f"uid-{name}", f"boot-{name}", (PresentImage(image, evidence, 990.0, **fields),))


def test_the_nodes_of_the_coming_pods_are_chosen() -> None:
    found = planned(cluster(nodes(), workloads=[announced()]))
    assert chosen(found) == ["n0", "n1"]
    assert all(entry.missing == (IMAGE,) for entry in found.nodes)


def test_a_workload_that_did_not_opt_in_is_not_planned() -> None:
    assert plan(cluster(nodes(), workloads=[announced(annotations={})]), HISTORY).demands == ()


def test_mode_off_is_a_skip_and_shadow_is_marked() -> None:
    snapshot = cluster(nodes(), workloads=[announced()], policies=[Policy("default", mode=PolicyMode.OFF)])
    result = plan(snapshot, HISTORY)
    assert result.demands == ()
    assert [(skip.reason, skip.workload) for skip in result.skips] == [(SkipReason.POLICY_OFF, WEB)]
    shadow = replace(snapshot, policies={"default": Policy("default", mode=PolicyMode.SHADOW)})
    assert planned(shadow).shadow


def test_the_policys_hold_is_part_of_the_plan_and_none_is_no_hold() -> None:
    snapshot = cluster(nodes(), workloads=[announced()])
    assert planned(snapshot).hold_seconds is None
    for given, held in ((7200.0, 7200.0), (0.0, None)):
        policy = Policy("default", hold_seconds=given)
        assert planned(replace(snapshot, policies={"default": policy})).hold_seconds == held


def test_a_malformed_annotation_is_a_problem_of_that_workload_alone() -> None:
    bad = replace(
        announced(), key=WorkloadKey("Deployment", "shop", "bad"), uid="u", annotations={"prewarm.dev/enabled": "1"}
    )
    result = plan(cluster(nodes(), workloads=[announced(), bad]), HISTORY)
    assert [problem.workload.name for problem in result.problems] == ["bad"]
    assert [entry.demand.workload for entry in result.demands] == [WEB]


def test_a_malformed_strategy_is_a_problem_too() -> None:
    result = plan(cluster(nodes(), workloads=[announced(max_surge="many")]), HISTORY)
    assert "'many' is neither a whole number nor a percentage" in result.problems[0].message


def test_warm_nodes_are_part_of_the_plan_without_a_pull() -> None:
    images = (NodeImageStatus((IMAGE,), 10**9),)
    cold, warm = nodes()[0], replace(nodes()[2], images=images)
    found = planned(cluster([cold, warm], workloads=[announced(replicas=6)]))
    assert {entry.name: entry.missing for entry in found.nodes} == {"n0": (IMAGE,), "n2": ()}
    assert reasons(found)["n2"] is SkipReason.ALREADY_PRESENT


def test_a_rollback_to_images_that_are_there_costs_nothing() -> None:
    images = (NodeImageStatus((IMAGE,), 10**9),)
    found = planned(cluster(nodes(images=images), workloads=[announced()]))
    assert all(entry.missing == () for entry in found.nodes)


def test_only_the_missing_images_of_a_pod_are_pulled() -> None:
    proxied = template(IMAGE, SMALL)
    images = (NodeImageStatus((SMALL,), 10**7),)
    found = planned(cluster(nodes(images=images), workloads=[announced(changed=proxied)]))
    assert {entry.missing for entry in found.nodes} == {(IMAGE,)}


def test_a_node_where_pulling_takes_longer_comes_before_one_where_little_is_missing() -> None:
    proxied = template(IMAGE, SMALL)
    first, second = nodes(2)
    first = replace(first, images=(NodeImageStatus((IMAGE,), 10**9),))
    found = planned(cluster([first, second], workloads=[announced(changed=proxied)]))
    assert [(entry.name, entry.missing) for entry in found.nodes] == [("n1", (IMAGE, SMALL)), ("n0", (SMALL,))]


def test_never_pulled_and_invalid_images_are_skips_of_the_image() -> None:
    odd = template(IMAGE, SMALL, "Not:An:Image")
    containers = (
        odd.shape.containers[0],
        replace(odd.shape.containers[1], pull_policy=PullPolicy.NEVER),
        odd.shape.containers[2],
    )
    odd = replace(odd, shape=replace(odd.shape, containers=containers))
    found = planned(cluster(nodes(), workloads=[announced(changed=odd)]))
    assert reasons(found)[SMALL] is SkipReason.PULL_POLICY_NEVER
    assert reasons(found)["Not:An:Image"] is SkipReason.INVALID_IMAGE
    assert {entry.missing for entry in found.nodes} == {(IMAGE,)}


def test_no_pull_where_the_node_does_not_take_one_now() -> None:
    full = replace(nodes()[0], disk_pressure=True)
    found = planned(cluster([full, nodes()[1]], workloads=[announced()]))
    assert "n0" not in chosen(found)
    assert reasons(found)["n0"] is SkipReason.NODE_DISK_PRESSURE


def test_a_first_deployment_is_too_late_for_every_node() -> None:
    found = planned(cluster(nodes(), workloads=[deployment(V2, replicas=2)]))
    assert found.nodes == ()
    assert set(reasons(found).values()) == {SkipReason.TOO_LATE}


def rolling(*, bound: bool) -> ClusterSnapshot:
    """Four replicas one at a time: the first new pod exists, on n0 if bound."""
    changed = deployment(V2, replicas=4, max_surge=1, max_unavailable=0)
    old, new = replica_set(changed, V1, 4), replica_set(changed, V2, 1, created_at=999.0)
    owner = OwnerReference("ReplicaSet", old.key.name, old.uid)
    running = Pod("shop", "", "", "", old.template.labels, owner=owner, shape=V1.shape, created_at=1.0, ready_at=10.0)
    running = replace(running, phase=PodPhase.RUNNING)
    pods = [replace(running, name=f"old{i}", uid=f"uid-old{i}", node_name=f"n{i}") for i in range(4)]
    owner = OwnerReference("ReplicaSet", new.key.name, new.uid)
    first = Pod("shop", "new0", "uid-new0", "n0" if bound else "", new.template.labels, owner=owner, created_at=999.5)
    first = replace(first, shape=V2.shape)
    return cluster(nodes(6), [*pods, first], [changed], [old, new])


def test_where_a_pod_of_the_revision_is_bound_it_pulls_itself() -> None:
    found = planned(rolling(bound=True))
    assert all(entry.missing == () for entry in found.nodes if entry.name == "n0")
    assert found.demand.pods == 3
    assert {entry.name for entry in found.nodes if entry.missing} <= {"n1", "n2", "n3", "n4", "n5"}


def test_while_the_first_pod_is_being_scheduled_at_most_half_is_pulled() -> None:
    found = planned(rolling(bound=False))
    assert sum(bool(entry.missing) for entry in found.nodes) <= 2


def test_a_replan_keeps_what_was_pulled_and_adds_no_more_than_allowed() -> None:
    snapshot = rolling(bound=True)
    before = planned(snapshot)
    pulled = [entry.name for entry in before.nodes if entry.missing]
    records = {name: present(name, IMAGE) for name in pulled}
    after = planned(replace(snapshot, node_images=records))
    assert set(pulled) <= set(chosen(after))
    assert sum(bool(entry.missing) for entry in after.nodes) + len(pulled) <= 5


def test_a_pull_where_a_pod_of_the_revision_is_bound_leaves_room_for_another() -> None:
    """The first burst took the node: the pull pays off, though no container has used it yet."""
    without = chosen(planned(rolling(bound=True)))
    pulled = replace(rolling(bound=True), node_images={"n0": present("n0", IMAGE)})
    assert set(chosen(planned(pulled))) == {*without, "n0"}


def test_pulls_under_way_elsewhere_count_against_overprovision() -> None:
    records = {f"x{i}": present(f"x{i}", IMAGE) for i in range(3)}
    idle = [node(f"x{i}", cpu=1, memory=1) for i in range(3)]
    snapshot = replace(cluster([*nodes(), *idle], workloads=[announced()]), node_images=records)
    found = planned(snapshot)
    assert sum(bool(entry.missing) for entry in found.nodes) == 0
    assert SkipReason.BEYOND_OVERPROVISION in reasons(found).values()
    used = {name: present(name, IMAGE, used_at=995.0) for name in records}
    assert sum(bool(entry.missing) for entry in planned(replace(snapshot, node_images=used)).nodes) == 2


def test_a_record_of_a_node_that_was_made_anew_counts_for_nothing() -> None:
    stale = NodeImages("n0", "uid-of-another", "boot-n0", (PresentImage(IMAGE, Evidence.OUR_PULL, 990.0),))
    found = planned(cluster(nodes(), workloads=[announced()], node_images=[stale]))
    assert {entry.name: entry.missing for entry in found.nodes}["n0"] == (IMAGE,)


def test_equal_empty_nodes_in_great_number_are_unpredictable() -> None:
    many = [node(f"n{i:03d}") for i in range(400)]
    found = planned(cluster(many, workloads=[announced(replicas=3)]))
    assert found.nodes == ()
    assert SkipReason.UNPREDICTABLE in reasons(found).values()
    assert found.candidates.predictability < 0.5


def test_what_has_few_nodes_and_pods_is_planned_before_what_has_many() -> None:
    made = [replace(one, labels={**one.labels, "pool": "a" if one.name == "n0" else "b"}) for one in nodes()]
    shape = replace(V2.shape, node_selector=(("pool", "a"),))
    wide, large, pooled = (WorkloadKey("Deployment", "shop", name) for name in ("a-wide", "b-large", "c-pooled"))
    workloads = [
        announced(key=wide),
        announced(key=large, replicas=100),
        announced(key=pooled, changed=replace(V2, shape=shape)),
    ]
    planner = Planner(cluster(made, workloads=workloads), HISTORY)
    assert planner.quickest_first([large, wide, pooled]) == [pooled, wide, large]


def test_what_nobody_opted_in_takes_no_time_however_large_it_is() -> None:
    many = [node(f"n{i:03d}") for i in range(400)]
    ours, theirs = WorkloadKey("Deployment", "shop", "ours"), WorkloadKey("Deployment", "shop", "theirs")
    workloads = [announced(key=ours, replicas=40), replace(announced(key=theirs, replicas=400), annotations={})]
    planner = Planner(cluster(many, workloads=workloads), HISTORY)
    assert [planner.is_quick(key) for key in (ours, theirs)] == [False, True]
    assert planner.quickest_first([ours, theirs]) == [theirs, ours]


def test_what_needs_nothing_is_idle_until_it_does() -> None:
    nightly = WorkloadKey("CronJob", "shop", "nightly")
    found = cluster(nodes(), workloads=[deployment(V1, key=nightly, schedule=Schedule("0 0 * * *"))])
    soon = replace(found, taken_at=24 * 3600.0 - 60)
    assert [Planner(at, HISTORY).is_idle(nightly) for at in (found, soon)] == [True, False]
    assert not Planner(soon, HISTORY).plan((nightly,)).problems
    nobodys = replace(soon.workloads[nightly], annotations={})
    assert Planner(replace(soon, workloads={nightly: nobodys}), HISTORY).is_idle(nightly)
    assert Planner(replace(soon, workloads={}), HISTORY).is_idle(nightly)


def test_what_cannot_be_read_is_idle_and_says_so_when_it_is_planned() -> None:
    planner = Planner(cluster(nodes(), workloads=[announced(max_surge="many")]), HISTORY)
    assert planner.is_idle(WEB)
    assert planner.plan((WEB,)).problems
