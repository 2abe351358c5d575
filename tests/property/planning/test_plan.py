"""What holds of every plan, whatever the cluster looks like."""

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.history import History, learn
from prewarm.model.image_caches import Policy
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage, pull_obstacle
from prewarm.model.plans import SkipReason
from prewarm.model.pods import OwnerReference, Pod, PodPhase, Taint
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey
from prewarm.planning import Planner, plan
from tests.support.clusters import cluster, deployment, node, replica_set, template

IMAGES = [f"registry.test/app:v{number}" for number in range(3)]
HISTORY = History()
FEW = settings(max_examples=25, deadline=None)


@st.composite
def a_node(draw: st.DrawFn, name: str) -> Node:
    made = node(name, cpu=draw(st.sampled_from((1, 4, 16))), memory=32, zone=draw(st.sampled_from("abc")))
    taints = draw(
        st.sampled_from(((), (), (), (Taint("dedicated"),), (Taint("node-role.kubernetes.io/control-plane"),)))
    )
    return replace(
        made,
        taints=taints,
        unschedulable=draw(st.integers(0, 9)) == 0,
        ready=draw(st.integers(0, 9)) > 0,
        disk_pressure=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def a_deployment(draw: st.DrawFn, name: str, nodes: list[str]) -> tuple[Workload, list[Workload], list[Pod]]:
    wanted = template(draw(st.sampled_from(IMAGES)), name=name)
    found = deployment(
        wanted,
        replicas=draw(st.integers(0, 12)),
        key=WorkloadKey("Deployment", "shop", name),
        paused=draw(st.booleans()),
        strategy=draw(st.sampled_from((UpdateStrategy.ROLLING_UPDATE, UpdateStrategy.RECREATE))),
        max_surge=draw(st.sampled_from((0, 1, "25%", "100%"))),
        max_unavailable=draw(st.sampled_from((0, 1, "25%", "50%"))),
    )
    sets, pods = [], []
    for index, image in enumerate(draw(st.lists(st.sampled_from(IMAGES), unique=True, max_size=3))):
        made = replica_set(found, template(image, name=name), draw(st.integers(0, 8)), created_at=float(index))
        sets.append(made)
        for number in range(draw(st.integers(0, 6))):
            bound = draw(st.sampled_from(["", *nodes]))
            ready = draw(st.sampled_from((None, 500.0, 900.0))) if bound else None
            pods.append(
                Pod(
                    "shop",
                    f"{made.key.name}-{number}",
                    f"uid-{made.key.name}-{number}",
                    bound,
                    labels=made.template.labels,
                    owner=OwnerReference("ReplicaSet", made.key.name, made.uid),
                    shape=made.template.shape,
                    phase=PodPhase.RUNNING if ready else PodPhase.PENDING,
                    created_at=draw(st.sampled_from((400.0, 800.0, 999.0))),
                    deleted_at=draw(st.sampled_from((None, None, 1010.0))),
                    ready_at=ready,
                )
            )
    return found, sets, pods


@st.composite
def snapshots(draw: st.DrawFn) -> ClusterSnapshot:
    names = [f"n{number:02d}" for number in range(draw(st.integers(0, 12)))]
    nodes = [draw(a_node(name)) for name in names]
    parts = [draw(a_deployment(f"app{number}", names)) for number in range(draw(st.integers(1, 3)))]
    records = [
        NodeImages(name, f"uid-{name}", f"boot-{name}", (PresentImage(image, Evidence.OUR_PULL, 990.0),))
        for name in names
        if draw(st.integers(0, 3)) == 0
        for image in [draw(st.sampled_from(IMAGES))]
    ]
    return cluster(
        nodes,
        [pod for _, _, pods in parts for pod in pods],
        [found for found, _, _ in parts],
        [made for _, sets, _ in parts for made in sets],
        node_images=records,
        policies=[Policy("default", coverage=draw(st.sampled_from((0.5, 0.95))))],
    )


@FEW
@given(snapshots())
def test_the_same_snapshot_gives_the_same_plan(snapshot: ClusterSnapshot) -> None:
    assert plan(snapshot, HISTORY) == plan(snapshot, HISTORY)


@FEW
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_order_of_objects_makes_no_difference(snapshot: ClusterSnapshot, random: Random) -> None:
    def shuffled(values: dict[Any, Any]) -> dict[Any, Any]:
        items = list(values.items())
        random.shuffle(items)
        return dict(items)

    fields = ("nodes", "pods", "workloads", "replica_sets", "node_images")
    nested = ("pods_by_node", "pods_by_namespace", "pods_by_owner", "replica_sets_by_owner")
    changes = {name: shuffled(dict(getattr(snapshot, name))) for name in fields}
    changes |= {name: shuffled({k: shuffled(dict(v)) for k, v in getattr(snapshot, name).items()}) for name in nested}
    assert plan(replace(snapshot, **changes), HISTORY) == plan(snapshot, HISTORY)


@FEW
@given(snapshots())
def test_plans_that_share_what_they_read_are_the_same(snapshot: ClusterSnapshot) -> None:
    planner = Planner(snapshot, HISTORY)
    ordered = planner.quickest_first(snapshot.workloads)
    assert sorted(ordered) == sorted(snapshot.workloads)
    assert [planner.plan([key]) for key in ordered] == [plan(snapshot, HISTORY, only=[key]) for key in ordered]


@FEW
@given(snapshots())
def test_planning_changed_workloads_alone_gives_the_same_plan_for_them(snapshot: ClusterSnapshot) -> None:
    whole = plan(snapshot, HISTORY)
    for key in snapshot.workloads:
        alone = plan(snapshot, HISTORY, only=[key])
        assert alone.only == (key,)
        assert alone.demands == tuple(entry for entry in whole.demands if entry.demand.workload == key)


@FEW
@given(snapshots())
def test_no_pull_on_a_node_that_takes_none(snapshot: ClusterSnapshot) -> None:
    for entry in plan(snapshot, HISTORY).demands:
        for chosen in entry.nodes:
            if chosen.missing:
                assert pull_obstacle(snapshot.nodes[chosen.name]) is None


@FEW
@given(snapshots())
def test_new_pulls_stay_within_overprovision(snapshot: ClusterSnapshot) -> None:
    for entry in plan(snapshot, HISTORY).demands:
        ours = {
            name
            for name, record in snapshot.node_images.items()
            if any(image.image in entry.demand.images for image in record.images)
        }
        new = [chosen for chosen in entry.nodes if chosen.missing and chosen.name not in ours]
        assert len(new) <= -(-entry.demand.pods * 3 // 2)


@FEW
@given(snapshots())
def test_every_candidate_is_pulled_on_or_has_a_reason(snapshot: ClusterSnapshot) -> None:
    for entry in plan(snapshot, HISTORY).demands:
        names = [chosen.name for chosen in entry.nodes]
        assert len(names) == len(set(names))
        explained = {chosen.name for chosen in entry.nodes if chosen.missing} | {skip.node for skip in entry.skips}
        assert {candidate.name for candidate in entry.candidates.nodes} <= explained


@FEW
@given(snapshots())
def test_once_all_is_pulled_nothing_new_is_asked_for(snapshot: ClusterSnapshot) -> None:
    first = plan(snapshot, HISTORY)
    records = dict(snapshot.node_images)
    for entry in first.demands:
        for chosen in entry.nodes:
            have = records[chosen.name].images if chosen.name in records else ()
            pulled = tuple(PresentImage(image, Evidence.OUR_PULL, 999.0) for image in chosen.missing)
            identity = (f"uid-{chosen.name}", f"boot-{chosen.name}")
            records[chosen.name] = NodeImages(chosen.name, *identity, (*have, *pulled))
    again = plan(replace(snapshot, node_images=records), HISTORY)
    before = {(e.demand.workload, n.name) for e in first.demands for n in e.nodes}
    for entry in again.demands:
        unsettled = any(skip.reason is SkipReason.UNSETTLED for skip in entry.skips)
        fresh = [n.name for n in entry.nodes if n.missing and (entry.demand.workload, n.name) not in before]
        assert len(fresh) <= (entry.demand.pods * 3 + 1) // 2 if unsettled else not fresh


def _twice(step: Callable[[History], History], history: History) -> tuple[History, History]:
    once = step(history)
    return once, step(once)


@FEW
@given(snapshots())
def test_learning_is_idempotent(snapshot: ClusterSnapshot) -> None:
    made = plan(snapshot, HISTORY)
    once, again = _twice(lambda history: learn(history, snapshot, made), HISTORY)
    assert again == once
