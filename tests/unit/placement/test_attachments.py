"""Attach limits: nodes that take no more volumes of a driver take no pods with such volumes."""

import pytest
from msgspec.structs import replace

from prewarm.model.plans import Batch, RejectReason
from prewarm.model.pods import Pod, PodShape
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.volumes import AttachLimits, Volume
from prewarm.placement import place
from tests.unit.placement.attach_cases import CASES, EBS, LIMITS, STANDING, AttachCase, driver
from tests.unit.placement.clusters import cluster, demand, node, pod, requests


def with_claims(*claims: str) -> PodShape:
    return replace(requests(100), volume_claims=claims)


def limited(volumes: set[str], pods: list[Pod], limits: dict[str, int], nodes: str) -> ClusterSnapshot:
    """EBS limits by node."""
    bound = [Volume(name, driver=driver(name), handle=name) for name in sorted(volumes)]
    found = cluster([node(name) for name in nodes], pods, volumes=bound)
    return replace(found, attach_limits={name: AttachLimits(((EBS, number),)) for name, number in limits.items()})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pods_fit_where_the_real_scheduler_lets_them(case: AttachCase) -> None:
    standing = [pod(name, shape=with_claims(*claims)) for name, pods in STANDING.items() for claims in pods]
    volumes = {volume for one in standing for volume in one.shape.volume_claims} | set(case.volumes)
    limits = {
        name: AttachLimits(tuple((kind, number) for kind, number in drivers.items() if number is not None))
        for name, drivers in LIMITS.items()
    }
    found = replace(limited(volumes, standing, {}, "abcd"), attach_limits=limits)
    landing = place(demand(1, with_claims(*case.volumes)), found, replays=64)
    fits = {name for name in "abcd" if name in case.fits}
    assert {one.name for one in landing.nodes} <= fits
    assert dict(landing.rejected).get(RejectReason.VOLUME_LIMITS, 0) == 4 - len(fits)


def test_pods_that_share_a_volume_need_one_place_for_it() -> None:
    found = place(demand(6, with_claims("ebs-1")), limited({"ebs-1"}, [], {"a": 1}, "a"))
    assert found.unplaced == 0


def test_each_pod_with_a_volume_of_its_own_takes_a_place() -> None:
    claims = [f"ebs-{index}" for index in range(5)]
    batches = tuple(Batch(0.0, 1, claims=(claim,)) for claim in claims)
    found = place(demand(batches=batches), limited(set(claims), [], {"a": 2, "b": 2}, "ab"))
    assert found.unplaced == 1


def test_a_pod_that_leaves_gives_its_place_back() -> None:
    old = pod("a", name="web-0", shape=with_claims("ebs-0"))
    batches = (Batch(0.0, 1, claims=("ebs-1",)),)
    snapshot = limited({"ebs-0", "ebs-1"}, [old], {"a": 1}, "a")
    assert place(demand(batches=batches), snapshot).unplaced == 1
    assert place(demand(batches=batches, leaving=[old], leaving_first=1), snapshot).unplaced == 0


def test_waiting_pods_take_their_places_first() -> None:
    waiting = pod(shape=with_claims("ebs-0"))
    snapshot = limited({"ebs-0", "ebs-1"}, [waiting], {"a": 1, "b": 1}, "ab")
    found = place(demand(2, with_claims("ebs-1")), snapshot)
    assert sum(one.probability for one in found.nodes) == pytest.approx(1.0)
