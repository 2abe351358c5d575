"""Delivery converges in one step, keeps its hands off what people wrote, and takes everything of its own back."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.delivery import DeliveryMemory, deliver
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.plans import Plan, Trigger
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import cluster, deployment, node, template
from tests.support.plans import applied, demand, demand_plan

NODES = [f"node-{index}" for index in range(5)]
WORKLOADS = [
    deployment(template("registry.example/web:v1", "side:v1"), key=WorkloadKey("Deployment", "shop", name))
    for name in ("web", "api", "jobs")
]
HAND_WRITTEN = ImageCache("shop", "base", uid="uid-base", lists=(ImageList(("a",)),))
node_lists = st.lists(st.sampled_from(NODES), unique=True, max_size=5)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan for any of the workloads, in any revision, with any nodes, some of them warm."""
    entries = []
    for workload in WORKLOADS:
        if draw(st.booleans()):
            needed = demand(
                workload,
                revision=draw(st.sampled_from(["a", "b"])),
                trigger=draw(st.sampled_from(Trigger)),
                needed_at=draw(st.floats(900, 2000)),
            )
            nodes = draw(node_lists)
            warm = draw(st.lists(st.sampled_from(nodes))) if nodes else []
            entries.append(demand_plan(needed, nodes, warm=warm, shadow=draw(st.integers(0, 4)) == 0))
    return Plan(tuple(entries))


@st.composite
def snapshots(draw: st.DrawFn, before: ClusterSnapshot) -> ClusterSnapshot:
    """The cluster a moment later: pullers run, images came, workloads went; caches as they were."""
    pullers = [
        Pod("shop", f"p-{cache.name}-{name}", "u", name, {"prewarm.dev/puller": "", "prewarm.dev/cache-uid": cache.uid})
        for cache in before.image_caches.values()
        for name in draw(node_lists)
    ]
    image = PresentImage("registry.example/web:v1", Evidence.OUR_PULL, 1.0)
    side = PresentImage("docker.io/library/side:v1", Evidence.OUR_PULL, 1.0)
    records = [NodeImages(name, f"uid-{name}", f"boot-{name}", (image, side)) for name in draw(node_lists)]
    workloads: list[Workload] = draw(st.lists(st.sampled_from(WORKLOADS), unique_by=lambda w: w.uid))
    return cluster(map(node, NODES), pullers, workloads, node_images=records, image_caches=before.image_caches.values())


START = cluster(map(node, NODES), workloads=WORKLOADS, image_caches=[HAND_WRITTEN])


@given(st.data())
def test_one_delivery_is_enough_and_hand_written_caches_stay(data: st.DataObject) -> None:
    snapshot = START
    for _ in range(data.draw(st.integers(1, 4))):
        snapshot = data.draw(snapshots(snapshot))
        plan = data.draw(plans())
        snapshot = applied(snapshot, deliver(plan, snapshot))
        assert deliver(plan, snapshot) == ()
        assert snapshot.image_caches[HAND_WRITTEN.key] == HAND_WRITTEN
        assert all(not cache.error for cache in snapshot.image_caches.values())
    snapshot = applied(snapshot, deliver(Plan(), snapshot))
    assert set(snapshot.image_caches) == {HAND_WRITTEN.key}


@given(st.data())
def test_every_planned_cache_belongs_to_a_demand_and_names_all_of_its_nodes(data: st.DataObject) -> None:
    before = data.draw(snapshots(applied(START, deliver(data.draw(plans()), START))))
    plan = data.draw(plans())
    after = applied(before, deliver(plan, before))
    alive = {str(key) for key in before.workloads}
    demands = {
        str(entry.demand.workload): entry
        for entry in plan.demands
        if not entry.shadow and entry.demand.trigger is not Trigger.WHAT_IF and str(entry.demand.workload) in alive
    }
    for cache in after.image_caches.values():
        if cache.planned:
            chosen = {chosen.name for chosen in demands[cache.workload].nodes}
            assert chosen <= set(cache.lists[0].node_names or ())
    written = {cache.workload for cache in after.image_caches.values() if cache.planned}
    assert {name for name, e in demands.items() if any(n.missing for n in e.nodes)} <= written


@given(st.data())
def test_workload_by_workload_is_the_same_as_all_at_once(data: st.DataObject) -> None:
    before = data.draw(snapshots(applied(START, deliver(data.draw(plans()), START))))
    plan = data.draw(plans())
    at_once = applied(before, deliver(plan, before))
    one_by_one = before
    for workload in data.draw(st.permutations(WORKLOADS)):
        one_by_one = applied(one_by_one, deliver(plan, one_by_one, only=[workload.key]))
    assert _substance(at_once) == _substance(one_by_one)


@given(st.data())
def test_memory_changes_nothing_but_repetition(data: st.DataObject) -> None:
    memory = DeliveryMemory()
    snapshot = START
    for _ in range(3):
        plan = data.draw(plans())
        with_memory = deliver(plan, snapshot, memory=memory)
        assert with_memory == deliver(plan, snapshot)
        assert deliver(plan, snapshot, memory=memory) == ()
        snapshot = applied(snapshot, with_memory)


def _substance(snapshot: ClusterSnapshot) -> dict[tuple[str, str], ImageCache]:
    return {key: replace(cache, resource_version="", generation=0) for key, cache in snapshot.image_caches.items()}
