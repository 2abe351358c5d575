"""Scores of the default plugins; the cases are those of the plugins' own test tables in Kubernetes 1.36.3."""

import numpy as np
import pytest

from prewarm.model.nodes import Node
from prewarm.model.pods import (
    Affinity,
    ContainerKind,
    ContainerShape,
    Pod,
    PodAffinityTerm,
    PodShape,
    PreferredNodeTerm,
    SpreadConstraint,
    Taint,
    TaintEffect,
    Toleration,
    WeightedPodAffinityTerm,
)
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Namespace, Service
from prewarm.placement import node_affinity, taints
from prewarm.placement.arrays import normalized
from prewarm.placement.cluster_arrays import cluster_arrays
from prewarm.placement.image_locality import ExpectedImage, ImageLocality
from prewarm.placement.incoming import IncomingPod
from prewarm.placement.pod_affinity import PodAffinity
from prewarm.placement.resources import balanced_allocation, least_allocated
from prewarm.placement.spread import NodeInclusion, TopologySpread
from tests.unit.placement.clusters import HOSTNAME, MIB, cluster, node, pod, replica_set

FOO = LabelSelector((("foo", ""),))
BAR = LabelSelector((("bar", ""),))


def rows(pairs: list[tuple[int, int]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Amounts of CPU and of memory, given by node."""
    return np.array(pairs, dtype=np.int64).T


@pytest.mark.parametrize(
    ("used", "capacity", "request_", "expected"),
    [
        pytest.param([(0, 0), (0, 0)], [(4000, 10000), (4000, 10000)], (0, 0), [100, 100], id="nothing requested"),
        pytest.param([(0, 0), (0, 0)], [(4000, 10000), (6000, 10000)], (3000, 5000), [37, 50], id="different sizes"),
        pytest.param([(6000, 0), (6000, 5000)], [(10000, 20000)] * 2, (0, 0), [70, 57], id="pods scheduled"),
        pytest.param([(3000, 0), (3000, 5000)], [(10000, 20000)] * 2, (3000, 5000), [57, 45], id="both"),
        pytest.param(
            [(3000, 0), (3000, 5000)], [(10000, 20000), (10000, 50000)], (3000, 5000), [57, 60], id="larger memory"
        ),
        pytest.param([(3000, 0), (3000, 5000)], [(4000, 10000)] * 2, (3000, 0), [50, 25], id="exceeds capacity"),
        pytest.param([(0, 0)], [(0, 0)], (0, 0), [0], id="node without resources"),
    ],
)
def test_least_allocated(
    used: list[tuple[int, int]], capacity: list[tuple[int, int]], request_: tuple[int, int], expected: list[int]
) -> None:
    scores = least_allocated(rows(used) + rows([request_]), rows(capacity))
    assert scores.tolist() == expected


@pytest.mark.parametrize(
    ("used", "capacity", "request_", "expected"),
    [
        pytest.param([(0, 0), (0, 0)], [(4000, 10000), (6000, 10000)], (3000, 5000), [68, 75], id="nothing scheduled"),
        pytest.param([(3000, 0), (3000, 5000)], [(10000, 20000)] * 2, (3000, 5000), [73, 74], id="pods scheduled"),
        pytest.param(
            [(3000, 0), (3000, 5000)], [(10000, 20000), (10000, 50000)], (3000, 5000), [73, 70], id="different sizes"
        ),
        pytest.param([(3000, 0), (0, 0)], [(3000, 5000)] * 2, (0, 5000), [100, 50], id="extremes"),
        pytest.param([(3000, 0), (3000, 5000)], [(6000, 10000)] * 2, (3000, 0), [62, 62], id="at capacity"),
    ],
)
def test_balanced_allocation(
    used: list[tuple[int, int]], capacity: list[tuple[int, int]], request_: tuple[int, int], expected: list[int]
) -> None:
    scores = balanced_allocation(rows(used), rows([request_]), rows(capacity))
    assert scores.tolist() == expected


def containers(*images: str, init: tuple[str, ...] = (), volumes: tuple[str, ...] = ()) -> PodShape:
    kinds = {ContainerKind.MAIN: images, ContainerKind.INIT: init, ContainerKind.IMAGE_VOLUME: volumes}
    return PodShape(
        tuple(
            ContainerShape(image, f"example.test/{image}", kind=kind) for kind, all_ in kinds.items() for image in all_
        )
    )


def image_node(name: str, *sizes: int) -> Node:
    return node(name, images={f"example.test/{size}:latest": size * MIB for size in sizes})


@pytest.mark.parametrize(
    ("shape", "held", "expected"),
    [
        pytest.param(containers("40", "250"), [(40, 300, 2000), (250, 10)], [0, 5], id="one image each"),
        pytest.param(containers("40", "300"), [(40, 300, 2000), (250, 10)], [7, 0], id="both on one node"),
        pytest.param(containers("10", "4000"), [(4000, 30), (250, 10)], [100, 0], id="above the limit"),
        pytest.param(containers("10", "4000"), [(4000, 30), (250, 10), ()], [66, 0, 0], id="third node without"),
        pytest.param(
            containers("300", "600", "900"), [(600, 40, 900), (300, 600, 900), ()], [32, 36, 0], id="three large"
        ),
        pytest.param(containers("30", "40"), [(20, 30, 40), (4000, 30)], [1, 0], id="small images"),
        pytest.param(containers("30", volumes=("300",)), [(300, 600, 900), (4000, 30)], [12, 0], id="image volume"),
        pytest.param(containers("30", init=("300",)), [(40, 300, 2000), (20, 30, 40)], [6, 0], id="init container"),
    ],
)
def test_image_locality(shape: PodShape, held: list[tuple[int, ...]], expected: list[int]) -> None:
    snapshot = cluster(image_node(f"node{i}", *sizes) for i, sizes in enumerate(held))
    score = ImageLocality(shape, cluster_arrays(snapshot), 1, {}).score()
    assert score is not None
    assert score[0].tolist() == expected


def test_image_locality_counts_nodes_that_are_out_of_reach() -> None:
    snapshot = cluster(image_node(f"node{i}", *sizes) for i, sizes in enumerate([(300,), (), (300,), (300,)]))
    whole, shape = cluster_arrays(snapshot), containers("300")
    everywhere = ImageLocality(shape, whole, 1, {}).score()
    part = ImageLocality(shape, whole.part(np.array([0, 1])), 1, {}).score()
    assert everywhere is not None
    assert part is not None
    assert part[0].tolist() == everywhere[0, :2].tolist()


def test_image_locality_compares_names_exactly() -> None:
    snapshot = cluster([node("a", images={"docker.io/library/nginx:1": 900 * MIB}), node("b")])
    assert ImageLocality(PodShape((ContainerShape("c", "nginx:1"),)), cluster_arrays(snapshot), 1, {}).score() is None


def test_expected_images_count_as_present() -> None:
    snapshot = cluster(node(name) for name in "abcd")
    expected = {"example.test/web:2": ExpectedImage(1000 * MIB, frozenset({"a", "b", "gone"}))}
    shape = PodShape((ContainerShape("c", "example.test/web:2"),))
    score = ImageLocality(shape, cluster_arrays(snapshot), 1, expected).score()
    assert score is not None
    assert score[0].tolist() == [48, 48, 0, 0]


def hosts(spread: dict[str, int], labels: dict[str, str] | None = None) -> list[Pod]:
    return [pod(name, labels=labels or {"foo": ""}) for name, number in spread.items() for _ in range(number)]


def named(*names: str) -> list[Node]:
    return [node(name) for name in names]


def zoned(**zones: str) -> list[Node]:
    return [
        node(name.replace("_", "-"), labels={HOSTNAME: name.replace("_", "-"), "zone": zone})
        for name, zone in zones.items()
    ]


def soft(key: str, skew: int = 1, selector: LabelSelector | None = FOO) -> SpreadConstraint:
    return SpreadConstraint(skew, key, hard=False, selector=selector)


def spread_scores(
    snapshot: ClusterSnapshot, spread: tuple[SpreadConstraint, ...], *, failed: tuple[str, ...] = (), **pod_labels: str
) -> dict[str, int]:
    incoming = IncomingPod("default", pod_labels or {"foo": "", "bar": ""}, PodShape(spread=spread))
    return scores_of(snapshot, incoming, failed)


def scores_of(snapshot: ClusterSnapshot, incoming: IncomingPod, failed: tuple[str, ...] = ()) -> dict[str, int]:
    arrays = cluster_arrays(snapshot)
    every = np.ones(arrays.count, dtype=np.bool_)
    selected = np.array([[name not in failed for name in arrays.names]])
    score = TopologySpread(incoming, snapshot, arrays, NodeInclusion(every, every), 1).score(selected)
    assert score is not None
    return {name: int(value) for name, value in zip(arrays.names, score[0], strict=True) if name not in failed}


MANY = {"a": 4, "b": 2, "x": 1, "y": 3}


@pytest.mark.parametrize(
    ("nodes", "spread", "pods", "failed", "expected"),
    [
        pytest.param(named("a", "b"), (soft(HOSTNAME),), [], (), {"a": 100, "b": 100}, id="no pods"),
        pytest.param(
            named("a", "b"), (soft(HOSTNAME),), hosts({"a": 2, "b": 1}), ("b",), {"a": 100}, id="one candidate"
        ),
        pytest.param(
            named("a", "b", "c", "d"),
            (soft(HOSTNAME),),
            hosts({"a": 2, "b": 1, "d": 3}),
            (),
            {"a": 20, "b": 60, "c": 100, "d": 0},
            id="2/1/0/3",
        ),
        pytest.param(
            named("a", "b"), (soft(HOSTNAME, selector=None),), hosts({"a": 2}), (), {"a": 100, "b": 100}, id="null"
        ),
        pytest.param(
            named("a", "b", "c", "d"),
            (soft(HOSTNAME, 2),),
            hosts({"a": 2, "b": 1, "d": 3}),
            (),
            {"a": 33, "b": 66, "c": 100, "d": 16},
            id="2/1/0/3, maxSkew 2",
        ),
        pytest.param(
            named("a", "b", "c", "d"),
            (soft(HOSTNAME, 3),),
            hosts({"a": 4, "b": 3, "c": 2, "d": 1}),
            (),
            {"a": 44, "b": 66, "c": 77, "d": 100},
            id="4/3/2/1, maxSkew 3",
        ),
        pytest.param(
            named("a", "b", "x", "y"),
            (soft(HOSTNAME),),
            hosts(MANY),
            ("y",),
            {"a": 33, "b": 83, "x": 100},
            id="3 of 4 are candidates",
        ),
        pytest.param(
            [*named("a", "x", "y"), node("b", labels={"n": "b"})],
            (soft(HOSTNAME),),
            hosts(MANY),
            ("y",),
            {"a": 16, "b": 0, "x": 100},
            id="label missing",
        ),
        pytest.param(
            zoned(a="z1", b="z1", x="z2", y="z2"),
            (soft("zone"),),
            hosts(MANY),
            ("y",),
            {"a": 75, "b": 75, "x": 100},
            id="zone",
        ),
        pytest.param(
            zoned(a="z1", b="z1", x="z2", y="z2"),
            (soft("zone"), soft(HOSTNAME)),
            hosts({"a": 2, "b": 1, "x": 2, "y": 4}),
            ("b", "y"),
            {"a": 100, "x": 63},
            id="zone and node",
        ),
        pytest.param(
            zoned(a="z1", b="z1", x="z2", y="z2"),
            (soft("zone"), soft(HOSTNAME, selector=BAR)),
            [*hosts({"a": 1, "y": 1}), *hosts({"b": 1}, {"foo": "", "bar": ""}), *hosts({"y": 1}, {"bar": ""})],
            (),
            {"a": 60, "b": 20, "x": 100, "y": 60},
            id="different selectors",
        ),
    ],
)
def test_topology_spread(
    nodes: list[Node],
    spread: tuple[SpreadConstraint, ...],
    pods: list[Pod],
    failed: tuple[str, ...],
    expected: dict[str, int],
) -> None:
    assert spread_scores(cluster(nodes, pods), spread, failed=failed) == expected


def test_spread_defaults_follow_services_where_nodes_have_no_zone() -> None:
    pods = hosts({"a": 4, "b": 3, "c": 2, "d": 1})
    snapshot = cluster(named("a", "b", "c", "d"), pods, services=[Service("default", "s", (("foo", ""),))])
    expected = {"a": 44, "b": 66, "c": 77, "d": 100}
    assert scores_of(snapshot, IncomingPod("default", {"foo": ""}, PodShape())) == expected


def test_spread_defaults_count_only_pods_of_the_own_revision() -> None:
    old, new = {"app": "web", "pod-template-hash": "1"}, {"app": "web", "pod-template-hash": "2"}
    sets = replica_set("web-1", old), replica_set("web-2", new)
    pods = [pod("a", labels=old, owner=sets[0]) for _ in range(3)] + [pod("b", labels=new, owner=sets[1])]
    snapshot = cluster(named("a", "b"), pods, replica_sets=sets, services=[Service("default", "s", (("app", "web"),))])
    incoming = IncomingPod("default", new, PodShape(), sets[1].selector, sets[1].uid)
    scores = scores_of(snapshot, incoming)
    assert scores["a"] > scores["b"]


def test_spread_ignores_terminating_pods_and_other_namespaces() -> None:
    pods = [pod("a", labels={"foo": ""}, deleted_at=1.0), pod("b", labels={"foo": ""}, namespace="other")]
    assert spread_scores(cluster(named("a", "b"), pods), (soft(HOSTNAME),)) == {"a": 100, "b": 100}


def test_pods_without_owner_and_service_have_no_default_constraints() -> None:
    snapshot = cluster(named("a"))
    arrays = cluster_arrays(snapshot)
    every = np.ones(1, dtype=np.bool_)
    incoming = IncomingPod("default", {"foo": ""}, PodShape())
    assert TopologySpread(incoming, snapshot, arrays, NodeInclusion(every, every), 1).score(every[np.newaxis]) is None


def preferred(weight: int, key: str, security: str, **extra: object) -> WeightedPodAffinityTerm:
    selector = LabelSelector(match_expressions=(Requirement("security", Operator.IN, (security,)),))
    return WeightedPodAffinityTerm(weight, PodAffinityTerm(key, selector, **extra))  # type: ignore[arg-type]


REGIONS = [
    node("node1", labels={"region": "China", "az": "az1"}),
    node("node2", labels={"region": "India", "az": "az2"}),
    node("node3", labels={"region": "China", "az": "az1"}),
]
STAY = Affinity(preferred_pod_affinity=(preferred(5, "region", "S1"),))
AWAY = Affinity(preferred_pod_anti_affinity=(preferred(5, "az", "S1"),))
HARD = Affinity(
    required_pod_affinity=(
        PodAffinityTerm("region", LabelSelector(match_expressions=(Requirement("security", Operator.IN, ("S1",)),))),
    )
)


def affinity_scores(snapshot: ClusterSnapshot, incoming: IncomingPod) -> list[int] | None:
    arrays = cluster_arrays(snapshot)
    score = PodAffinity(incoming, snapshot, arrays, 1).score(np.ones((1, arrays.count), dtype=np.bool_))
    return None if score is None else [int(value) for value in score[0]]


@pytest.mark.parametrize(
    ("own", "pods", "expected"),
    [
        pytest.param(Affinity(), [pod("node1", labels={"security": "S1"})], None, id="nobody prefers anything"),
        pytest.param(STAY, [pod("node1", labels={"security": "S1"})], [100, 0, 100], id="same region"),
        pytest.param(AWAY, [pod("node1", labels={"security": "S1"})], [0, 100, 0], id="away from the zone"),
        pytest.param(Affinity(), [pod("node2", shape=PodShape(affinity=STAY))], [0, 100, 0], id="symmetric, preferred"),
        pytest.param(Affinity(), [pod("node1", shape=PodShape(affinity=AWAY))], [0, 100, 0], id="symmetric, anti"),
        pytest.param(
            Affinity(), [pod("node1", shape=PodShape(affinity=HARD))], [100, 0, 100], id="symmetric, required"
        ),
        pytest.param(
            Affinity(),
            [pod("node1", shape=PodShape(affinity=HARD)), pod("node2", shape=PodShape(affinity=STAY))],
            [0, 100, 0],
            id="a required term weighs 1, a preferred one its weight",
        ),
    ],
)
def test_pod_affinity(own: Affinity, pods: list[Pod], expected: list[int] | None) -> None:
    incoming = IncomingPod("default", {"security": "S1"}, PodShape(affinity=own))
    assert affinity_scores(cluster(REGIONS, pods), incoming) == expected


def test_pod_affinity_reaches_named_and_selected_namespaces() -> None:
    term = preferred(
        5,
        "region",
        "S1",
        namespaces=("subteam2.team2",),
        namespace_selector=LabelSelector(match_expressions=(Requirement("team", Operator.IN, ("team1",)),)),
    )
    labels = {"security": "S1"}
    pods = [
        pod("node1", labels=labels, namespace="subteam1.team1"),
        pod("node2", labels=labels, namespace="subteam2.team2"),
        pod("node3", labels=labels, namespace="default"),
    ]
    namespaces = [Namespace("subteam1.team1", {"team": "team1"}), Namespace("default", {"team": "team3"})]
    nodes = [node(f"node{i}", labels={"region": str(i)}) for i in (1, 2, 3)]
    snapshot = cluster(nodes, pods, namespaces=namespaces)
    incoming = IncomingPod("default", {}, PodShape(affinity=Affinity(preferred_pod_affinity=(term,))))
    assert affinity_scores(snapshot, incoming) == [100, 100, 0]


def test_preferred_node_affinity_sums_weights_and_normalises_by_the_best() -> None:
    zone = NodeSelectorTerm((Requirement("zone", Operator.IN, ("z1",)),))
    disk = NodeSelectorTerm((Requirement("disk", Operator.EXISTS),))
    terms = (PreferredNodeTerm(2, zone), PreferredNodeTerm(5, disk), PreferredNodeTerm(9, NodeSelectorTerm()))
    nodes = [node("a", labels={"zone": "z1"}), node("b", labels={"zone": "z1", "disk": "ssd"}), node("c", labels={})]
    arrays = cluster_arrays(cluster(nodes))
    weights = node_affinity.preference(PodShape(affinity=Affinity(preferred_node_terms=terms)), arrays)
    assert weights is not None
    assert normalized(weights, np.ones((1, 3), dtype=np.bool_))[0].tolist() == [28, 100, 0]


def test_untolerated_soft_taints_lower_the_score() -> None:
    one, two = Taint("one", "", TaintEffect.PREFER_NO_SCHEDULE), Taint("two", "", TaintEffect.PREFER_NO_SCHEDULE)
    arrays = cluster_arrays(cluster([node("a"), node("b", taints=(one,)), node("c", taints=(one, two))]))
    selected = np.ones((1, 3), dtype=np.bool_)
    strict = taints.unwelcome(PodShape(), arrays)
    lenient = taints.unwelcome(PodShape(tolerations=(Toleration("one", "Exists"),)), arrays)
    assert strict is not None
    assert lenient is not None
    assert normalized(strict, selected, reverse=True)[0].tolist() == [100, 50, 0]
    assert normalized(lenient, selected, reverse=True)[0].tolist() == [100, 100, 0]
