"""Invariants of placement over arbitrary small clusters."""

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarm.model.nodes import Node
from prewarm.model.plans import Batch, Demand
from prewarm.model.pods import (
    Affinity,
    PodAffinityTerm,
    PodShape,
    SpreadConstraint,
    Taint,
    TaintEffect,
    Toleration,
)
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import cluster_arrays, place, place_both_ways, place_in_turn
from tests.unit.placement.clusters import HOSTNAME, MIB, cluster, demand, node, pod, requests

APP = LabelSelector((("app", "web"),))
TAINTS = st.sampled_from([(), (Taint("t"),), (Taint("t", effect=TaintEffect.PREFER_NO_SCHEDULE),)])


@st.composite
def nodes(draw: st.DrawFn, prefix: str = "n") -> list[Node]:
    made = []
    for index in range(draw(st.integers(1, 12))):
        labels = {HOSTNAME: f"{prefix}{index}", "zone": draw(st.sampled_from(["z1", "z2", "z3"]))}
        made.append(
            node(
                f"{prefix}{index}",
                labels=labels,
                cpu=draw(st.sampled_from([1000, 4000, 8000])),
                taints=draw(TAINTS),
                unschedulable=draw(st.booleans()) and draw(st.booleans()),
            )
        )
    return made


@st.composite
def shapes(draw: st.DrawFn) -> PodShape:
    term = PodAffinityTerm(draw(st.sampled_from([HOSTNAME, "zone"])), APP)
    affinity = draw(
        st.sampled_from(
            [Affinity(), Affinity(required_pod_affinity=(term,)), Affinity(required_pod_anti_affinity=(term,))]
        )
    )
    spread = draw(st.sampled_from([(), (SpreadConstraint(1, "zone", hard=True, selector=APP),)]))
    tolerations = draw(st.sampled_from([(), (Toleration("t", "Exists"),)]))
    base = requests(draw(st.sampled_from([0, 500, 3000])), 256 * MIB)
    return msgspec.structs.replace(base, affinity=affinity, spread=spread, tolerations=tolerations)


@st.composite
def cases(draw: st.DrawFn) -> tuple[ClusterSnapshot, Demand]:
    there = draw(nodes())
    shape = draw(shapes())
    names = [one.name for one in there]
    pods = [
        pod(draw(st.sampled_from(["", *names])), labels={"app": draw(st.sampled_from(["web", "db"]))}, shape=shape)
        for _ in range(draw(st.integers(0, 6)))
    ]
    leaving = draw(st.lists(st.sampled_from(pods), unique_by=id, max_size=3)) if pods else []
    wanted = demand(draw(st.integers(1, 6)), shape, leaving=leaving, leaving_first=draw(st.integers(0, len(leaving))))
    return cluster(there, pods), wanted


def admits(there: Node, shape: PodShape) -> bool:
    hard = [taint for taint in there.taints if taint.effect is not TaintEffect.PREFER_NO_SCHEDULE]
    return (
        not there.unschedulable
        and all(any(t.tolerates(taint) for t in shape.tolerations) for taint in hard)
        and shape.requests.milli_cpu <= there.allocatable.milli_cpu
    )


@given(cases())
@settings(deadline=None)
def test_no_pod_lands_where_a_filter_rejects_it(case: tuple[ClusterSnapshot, Demand]) -> None:
    snapshot, wanted = case
    found = place(wanted, snapshot, replays=8)
    shape = wanted.template.shape
    assert all(admits(snapshot.nodes[candidate.name], shape) for candidate in found.nodes)
    if shape.affinity.required_pod_anti_affinity:
        key = shape.affinity.required_pod_anti_affinity[0].topology_key
        staying = [p for p in snapshot.pods.values() if p.key not in wanted.leaving and p.node_name]
        taken = {snapshot.nodes[p.node_name].labels[key] for p in staying if p.labels["app"] == "web"}
        assert not any(snapshot.nodes[candidate.name].labels[key] in taken for candidate in found.nodes)


@given(cases())
@settings(deadline=None)
def test_every_pod_is_somewhere_or_unplaced(case: tuple[ClusterSnapshot, Demand]) -> None:
    snapshot, wanted = case
    found = place(wanted, snapshot, replays=8)
    names = [candidate.name for candidate in found.nodes]
    assert len(names) == len(set(names))
    assert all(0 < candidate.probability <= 1 for candidate in found.nodes)
    assert sum(candidate.probability for candidate in found.nodes) <= wanted.pods + 1e-9
    assert bool(names) or found.unplaced == wanted.pods
    assert 0 <= found.unplaced <= wanted.pods
    assert 0 <= found.predictability <= 1
    assert len(names) + sum(number for _, number in found.rejected) <= len(snapshot.nodes)


@given(cases(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_equal_input_in_any_order_gives_the_equal_answer(case: tuple[ClusterSnapshot, Demand], random: Random) -> None:
    snapshot, wanted = case
    there, pods = list(snapshot.nodes.values()), list(snapshot.pods.values())
    expected = place(wanted, snapshot, replays=8, seed=3)
    random.shuffle(there)
    random.shuffle(pods)
    assert place(wanted, cluster(there, pods), replays=8, seed=3) == expected


@given(cases(), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
@settings(deadline=None)
def test_a_part_in_turn_is_the_part_alone(
    case: tuple[ClusterSnapshot, Demand], pods: list[int], data: st.DataObject
) -> None:
    snapshot, wanted = case
    first = data.draw(st.integers(1, len(pods)))
    at_first = data.draw(st.integers(wanted.leaving_first, len(wanted.leaving)))
    batches = [
        Batch(100.0 + (0 if index < first else 20 * index), number, at_first if index == 0 else int(index >= first))
        for index, number in enumerate(pods)
    ]
    whole = msgspec.structs.replace(wanted, batches=tuple(batches), leaving=wanted.leaving[:at_first])
    head = msgspec.structs.replace(whole, batches=whole.batches[:first])
    apart = (place(head, snapshot, replays=8, seed=5), place(whole, snapshot, replays=8, seed=5))
    assert place_in_turn(whole, snapshot, first, replays=8, seed=5) == apart


@given(cases(), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
@settings(deadline=None)
def test_both_ways_side_by_side_are_each_way_alone(
    case: tuple[ClusterSnapshot, Demand], pods: list[int], data: st.DataObject
) -> None:
    snapshot, wanted = case
    first = data.draw(st.integers(0, len(pods)))
    leaving = data.draw(st.integers(0, len(wanted.leaving)))
    batches = [Batch(100.0 + 20 * index, number, min(index, 1)) for index, number in enumerate(pods)]
    whole = msgspec.structs.replace(wanted, batches=tuple(batches))
    fewer = msgspec.structs.replace(whole, leaving=wanted.leaving[:leaving])
    apart = (
        *place_in_turn(fewer, snapshot, first, replays=8, seed=5),
        place(whole, snapshot, replays=8, seed=5),
    )
    assert place_both_ways(whole, snapshot, first, leaving, replays=8, seed=5) == apart


@st.composite
def pools(draw: st.DrawFn) -> tuple[ClusterSnapshot, Demand]:
    """A demand for one pool of several, with its own pods, other pods and waiting ones all over."""
    there = [
        msgspec.structs.replace(one, labels={**one.labels, "pool": draw(st.sampled_from(["a", "b"]))})
        for one in draw(nodes())
    ]
    image = draw(st.sampled_from([{}, {"example.test/web:2": 5000 * MIB}]))
    there += [
        node(f"i{n}", labels={HOSTNAME: f"i{n}", "zone": "z1", "pool": p}, images=image)
        for n, p in [(0, "a"), (1, "b")]
    ]
    shape, other = draw(shapes()), draw(shapes())
    mine = msgspec.structs.replace(shape, node_selector=(("pool", "a"),))
    names = [one.name for one in there]
    pods = [
        pod(draw(st.sampled_from(["", *names])), labels={"app": "web"}, shape=draw(st.sampled_from([mine, other])))
        for _ in range(draw(st.integers(0, 6)))
    ]
    leaving = draw(st.lists(st.sampled_from(pods), unique_by=id, max_size=3)) if pods else []
    return cluster(there, pods), demand(draw(st.integers(1, 6)), mine, leaving=leaving)


@given(pools())
@settings(deadline=None)
def test_leaving_out_what_is_out_of_reach_changes_nothing(case: tuple[ClusterSnapshot, Demand]) -> None:
    snapshot, wanted = case
    everywhere = place(wanted, snapshot, replays=8, seed=5, cluster=cluster_arrays(snapshot))
    assert place(wanted, snapshot, replays=8, seed=5) == everywhere


@given(nodes(), shapes(), st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_names_do_not_matter(there: list[Node], shape: PodShape, pods: int) -> None:
    """The same nodes under names in reverse order: each node's probability stays, but for what is drawn."""
    renamed = {one.name: f"m{len(there) - index:03d}" for index, one in enumerate(there)}
    mirrored = [
        msgspec.structs.replace(one, name=renamed[one.name], labels={**one.labels, HOSTNAME: renamed[one.name]})
        for one in there
    ]
    wanted = demand(pods, shape)
    straight = {n.name: n.probability for n in place(wanted, cluster(there), replays=400).nodes}
    turned = {n.name: n.probability for n in place(wanted, cluster(mirrored), replays=400).nodes}
    for name, other in renamed.items():
        assert abs(straight.get(name, 0.0) - turned.get(other, 0.0)) < 0.2
