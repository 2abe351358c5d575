"""Waiting pods are placed first where they can stand in the way, and not more of them than is worth it."""

from msgspec.structs import replace

from prewarm.model.plans import Batch
from prewarm.model.pods import OwnerReference, Pod, PodShape
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import cluster_arrays, place
from prewarm.placement.competitors import ALL_COMPETITORS, competitors
from prewarm.placement.incoming import of_demand
from tests.unit.placement.clusters import cluster, demand, node, pod, requests

NODES = [node(f"{pool}-{number}", labels={"pool": pool}) for pool in ("a", "b") for number in range(2)]


def in_pool(pool: str, cpu: int = 8000) -> PodShape:
    return replace(requests(cpu), node_selector=(("pool", pool),))


def waiting(owner: str, number: int, shape: PodShape) -> list[Pod]:
    owned = OwnerReference("ReplicaSet", owner, f"uid-{owner}")
    return [replace(pod(name=f"{owner}-{index}", shape=shape), owner=owned) for index in range(number)]


def counted(ours: PodShape, now: ClusterSnapshot, owner_uid: str = "") -> list[int]:
    found = demand(batches=(Batch(10.0, 1),), shape=ours)
    as_pod = replace(of_demand(found, now), owner_uid=owner_uid)
    return [number for _, number in competitors(found, now, as_pod, cluster_arrays(now))]


def test_pods_of_another_pool_do_not_stand_in_the_way() -> None:
    pods = [*waiting("beside", 1, in_pool("a")), *waiting("elsewhere", 2, in_pool("b"))]
    now = cluster(NODES, pods)
    assert counted(in_pool("a"), now) == [1]
    found = place(demand(batches=(Batch(10.0, 2),), shape=in_pool("a")), now)
    assert found.unplaced == 1
    assert {one.name for one in found.nodes} == {"a-0", "a-1"}


def test_a_single_pod_that_is_likelier_elsewhere_is_not_counted_on() -> None:
    assert counted(in_pool("a"), cluster(NODES, waiting("anywhere", 1, requests(100)))) == []
    assert counted(in_pool("a"), cluster(NODES, waiting("anywhere", 2, requests(100)))) == [2]


def test_many_kinds_cost_no_more_together_and_our_own_are_never_left_out() -> None:
    kinds = [waiting(f"other-{kind:02d}", 20, requests(100)) for kind in range(40)]
    ours = waiting("zz-ours", 5, requests(100))
    now = cluster(NODES, [one for pods in kinds for one in pods] + ours)
    found = counted(requests(100), now, "uid-zz-ours")
    assert found[-1] == 5
    assert sum(found[:-1]) <= ALL_COMPETITORS / len(kinds)
