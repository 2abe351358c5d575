"""Rollouts of other workloads are counted on where their pods come first."""

from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.plans import Batch, Demand
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement import cluster_arrays
from prewarm.planning.rolling import ALL_RIVAL_PODS, Rolling
from tests.unit.placement.clusters import cluster, demand, node, pod, requests


def rolling_out(name: str, replicas: int = 4) -> Workload:
    """A Deployment whose controller has not seen its new template yet."""
    return Workload(
        WorkloadKey("Deployment", "default", name),
        uid=f"uid-{name}",
        generation=2,
        observed_generation=1,
        replicas=replicas,
        template=replace(demand().template, shape=requests(500)),
        template_hash="new",
    )


def snapshot(*workloads: Workload) -> ClusterSnapshot:
    return replace(cluster([node("a")]), workloads={one.key: one for one in workloads})


OURS = demand(batches=(Batch(1000.0, 4),))


def beside(now: ClusterSnapshot, ours: Demand = OURS) -> tuple[Demand, ...]:
    return Rolling(now, History()).beside(ours, cluster_arrays(now))


def test_a_rollout_that_is_under_way_comes_beside() -> None:
    found = beside(snapshot(rolling_out("other")))
    assert [(one.workload.name, one.pods) for one in found] == [("other", 4)]


def test_what_is_rolled_out_paused_or_our_own_does_not() -> None:
    done = replace(rolling_out("done"), observed_generation=2, updated_replicas=4, status_replicas=4)
    paused = replace(rolling_out("paused"), paused=True)
    ours = replace(rolling_out("web"), key=OURS.workload)
    assert beside(snapshot(done, paused, ours)) == ()


def test_a_strategy_that_cannot_be_read_is_left_out() -> None:
    odd = replace(rolling_out("odd"), max_surge="many")
    found = beside(snapshot(odd, rolling_out("other")))
    assert [one.workload.name for one in found] == ["other"]


def test_many_rollouts_at_once_cost_no_more_together() -> None:
    many = [rolling_out(f"other-{index:03d}", replicas=50) for index in range(100)]
    found = beside(snapshot(*many))
    assert 0 < sum(one.pods for one in found) <= ALL_RIVAL_PODS / len(many)


def in_pool(name: str, pool: str) -> Workload:
    found = rolling_out(name)
    shape = replace(found.template.shape, node_selector=(("pool", pool),))
    return replace(found, template=replace(found.template, shape=shape))


def test_those_in_another_pool_cost_nothing() -> None:
    nodes = [node(f"{pool}-{number}", labels={"pool": pool}) for pool in ("a", "b") for number in range(3)]
    rolling = [in_pool("beside", "a"), in_pool("elsewhere", "b"), rolling_out("anywhere")]
    now = replace(snapshot(*rolling), nodes={one.name: one for one in nodes})
    ours = demand(batches=(Batch(1000.0, 4),), shape=in_pool("web", "a").template.shape)
    assert [one.workload.name for one in beside(now, ours)] == ["anywhere", "beside"]


def test_those_that_hardly_come_to_a_small_pool_are_not_counted_on() -> None:
    nodes = [node(f"node-{number}", labels={"pool": "a" if number == 0 else "b"}) for number in range(10)]
    few, many = rolling_out("few", replicas=4), rolling_out("many", replicas=40)
    now = replace(snapshot(few, many), nodes={one.name: one for one in nodes})
    ours = demand(batches=(Batch(1000.0, 4),), shape=in_pool("web", "a").template.shape)
    assert [one.workload.name for one in beside(now, ours)] == ["many"]


def test_one_that_comes_to_another_pool_is_met_where_its_old_pods_stand() -> None:
    nodes = [node(f"{pool}-{number}", labels={"pool": pool}) for pool in ("a", "b") for number in range(3)]
    moves, stays = in_pool("moves", "b"), in_pool("stays", "b")
    sets, pods = {}, {}
    for one, stands_on in ((moves, "a-0"), (stays, "b-0")):
        key = WorkloadKey("ReplicaSet", "default", f"{one.key.name}-old")
        made = Workload(key, uid=f"uid-{key.name}", replicas=4, template=one.template, template_hash="old")
        sets[one.uid] = {("default", key.name): made}
        old = pod(stands_on, owner=made)
        pods[made.uid] = {old.key: old}
    now = replace(
        snapshot(moves, stays),
        nodes={one.name: one for one in nodes},
        replica_sets_by_owner=sets,
        pods_by_owner=pods,
        pods={key: one for group in pods.values() for key, one in group.items()},
    )
    ours = demand(batches=(Batch(1000.0, 4),), shape=in_pool("web", "a").template.shape)
    assert [one.workload.name for one in beside(now, ours)] == ["moves"]
