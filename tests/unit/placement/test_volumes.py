"""Bound volumes: which nodes they leave, per pod template and per pod."""

import pytest
from msgspec.structs import replace

from prewarm.cluster.decoding.common import WireMeta
from prewarm.cluster.decoding.volumes import WireVolume, volume
from prewarm.model.nodes import Node
from prewarm.model.plans import Batch, RejectReason
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.model.volumes import Volume
from prewarm.placement import place
from tests.unit.placement.clusters import HOSTNAME, cluster, demand, node, pod, requests
from tests.unit.placement.volume_cases import CASES, NODES, VolumeCase

SHAPE = replace(requests(500), volume_claims=("data",))


def nodes() -> list[Node]:
    return [node(name, labels=labels) for name, labels in NODES.items()]


def on_host(name: str, host: str) -> Volume:
    return Volume(name, node_terms=(NodeSelectorTerm((Requirement(HOSTNAME, Operator.IN, (host,)),)),))


def decoded(case: VolumeCase) -> Volume:
    """Labels go through the decoder, which reads their zones."""
    found = volume(WireVolume(WireMeta(name="data", labels=dict(case.labels))), lambda _problem: None)
    terms = tuple(NodeSelectorTerm(requirements) for requirements in case.terms) or None
    return replace(found, node_terms=terms)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pods_fit_where_the_real_scheduler_lets_them(case: VolumeCase) -> None:
    found = place(demand(16, SHAPE), cluster(nodes(), volumes=[decoded(case)]))
    assert {one.name for one in found.nodes} == set(case.fits)
    assert sum(number for _, number in found.rejected) == len(NODES) - len(case.fits)


def test_the_filter_that_rejects_is_named() -> None:
    bound = replace(on_host("data", "c"), zones=(("topology.kubernetes.io/zone", ("z1",)),))
    found = place(demand(1, SHAPE), cluster(nodes(), volumes=[bound]))
    assert dict(found.rejected) == {RejectReason.VOLUME_BINDING: 3, RejectReason.VOLUME_ZONE: 1}
    assert found.unplaced == 1


def test_a_claim_that_is_not_bound_restricts_nothing() -> None:
    assert len(place(demand(16, SHAPE), cluster(nodes())).nodes) == 4


def test_each_pod_goes_where_its_own_volume_is() -> None:
    volumes = [on_host("data-0", "c"), on_host("data-1", "a")]
    batches = (Batch(0.0, 1, claims=("data-0",)), Batch(5.0, 1, claims=("data-1",)))
    found = place(demand(batches=batches), cluster(nodes(), volumes=volumes))
    assert [(one.name, one.probability) for one in found.nodes] == [("a", 1.0), ("c", 1.0)]
    assert dict(found.rejected) == {RejectReason.VOLUME_BINDING: 2}


def test_a_pod_whose_volume_is_on_a_full_node_keeps_no_other_from_coming() -> None:
    busy = pod("c", shape=requests(8000))
    batches = (Batch(0.0, 1, claims=("data-0",)), Batch(5.0, 1))
    found = place(demand(batches=batches), cluster(nodes(), [busy], volumes=[on_host("data-0", "c")]))
    assert found.unplaced == 1
    assert "c" not in {one.name for one in found.nodes}


def test_a_waiting_pod_with_a_volume_takes_room_only_there() -> None:
    waiting = pod(shape=replace(requests(6000), volume_claims=("data",)))
    found = place(demand(4, requests(4000)), cluster(nodes(), [waiting], volumes=[on_host("data", "d")]))
    assert {one.name for one in found.nodes} == {"a", "b", "c"}
