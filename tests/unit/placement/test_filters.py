"""Filters of the default plugins: which nodes a pod may take, and which filter is named first where it may not."""

import pytest

from prewarm.model.nodes import Node
from prewarm.model.plans import RejectReason
from prewarm.model.pods import (
    Affinity,
    HostPort,
    Pod,
    PodAffinityTerm,
    PodShape,
    Resources,
    SpreadConstraint,
    Taint,
    TaintEffect,
    Toleration,
)
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Namespace
from prewarm.placement.cluster_arrays import ClusterArrays, Usage, cluster_arrays
from prewarm.placement.incoming import IncomingPod
from prewarm.placement.scheduler import PodScheduler
from tests.unit.placement.clusters import HOSTNAME, cluster, node, pod, requests

FOO = LabelSelector((("foo", ""),))
ZONES = {"a": "z1", "b": "z1", "x": "z2", "y": "z2"}


def zoned() -> list[Node]:
    return [node(name, labels={HOSTNAME: name, "zone": zone, "node": name}) for name, zone in ZONES.items()]


def scheduler(snapshot: ClusterSnapshot, shape: PodShape, **labels: str) -> tuple[PodScheduler, ClusterArrays]:
    arrays = cluster_arrays(snapshot)
    return PodScheduler(IncomingPod("default", labels, shape), snapshot, arrays, Usage(snapshot, arrays, 1), {}), arrays


def feasible(snapshot: ClusterSnapshot, shape: PodShape, **labels: str) -> set[str]:
    made, arrays = scheduler(snapshot, shape, **labels)
    return {name for name, fits in zip(arrays.names, made.feasible()[0], strict=True) if fits}


def rejections(snapshot: ClusterSnapshot, shape: PodShape, **labels: str) -> dict[str, RejectReason]:
    made, arrays = scheduler(snapshot, shape, **labels)
    return {arrays.names[column]: reason for column, reason in made.rejections(0).items()}


def test_cordoned_nodes_take_only_pods_that_tolerate_it() -> None:
    snapshot = cluster([node("a", unschedulable=True), node("b")])
    assert rejections(snapshot, PodShape()) == {"a": RejectReason.NODE_UNSCHEDULABLE}
    lenient = PodShape(tolerations=(Toleration("node.kubernetes.io/unschedulable", "Exists"),))
    assert feasible(snapshot, lenient) == {"a", "b"}


@pytest.mark.parametrize(
    ("effect", "toleration", "fits"),
    [
        (TaintEffect.NO_SCHEDULE, None, False),
        (TaintEffect.NO_EXECUTE, None, False),
        (TaintEffect.PREFER_NO_SCHEDULE, None, True),
        (TaintEffect.NO_SCHEDULE, Toleration("team", "Equal", "ml"), True),
        (TaintEffect.NO_SCHEDULE, Toleration("team", "Equal", "web"), False),
        (TaintEffect.NO_SCHEDULE, Toleration("team", "Equal", "ml", "NoExecute"), False),
        (TaintEffect.NO_EXECUTE, Toleration("", "Exists"), True),
    ],
)
def test_taints(effect: TaintEffect, toleration: Toleration | None, fits: bool) -> None:
    snapshot = cluster([node("a", taints=(Taint("team", "ml", effect),))])
    shape = PodShape(tolerations=() if toleration is None else (toleration,))
    assert (feasible(snapshot, shape) == {"a"}) is fits


def test_selector_and_one_required_term_have_to_match() -> None:
    nodes = [
        node("a", labels={"pool": "web", "zone": "z1"}),
        node("b", labels={"pool": "web", "zone": "z3"}),
        node("c", labels={"pool": "db", "zone": "z1"}),
    ]
    terms = tuple(NodeSelectorTerm((Requirement("zone", Operator.IN, (zone,)),)) for zone in ("z1", "z2"))
    shape = PodShape(node_selector=(("pool", "web"),), affinity=Affinity(required_node_terms=terms))
    assert feasible(cluster(nodes), shape) == {"a"}
    by_name = NodeSelectorTerm((), (Requirement("metadata.name", Operator.IN, ("b",)),))
    assert feasible(cluster(nodes), PodShape(affinity=Affinity(required_node_terms=(by_name,)))) == {"b"}
    assert feasible(cluster(nodes), PodShape(affinity=Affinity(required_node_terms=()))) == set()
    assert feasible(cluster(nodes), PodShape(node_name="c")) == {"c"}


@pytest.mark.parametrize(
    ("want", "taken", "fits"),
    [
        (HostPort(80), HostPort(80), False),
        (HostPort(80), HostPort(81), True),
        (HostPort(80, "UDP"), HostPort(80), True),
        (HostPort(80, host_ip="127.0.0.1"), HostPort(80, host_ip="127.0.0.2"), True),
        (HostPort(80, host_ip="127.0.0.1"), HostPort(80), False),
    ],
)
def test_host_ports(want: HostPort, taken: HostPort, fits: bool) -> None:
    snapshot = cluster([node("a")], [pod("a", shape=PodShape(host_ports=(taken,)))])
    assert (feasible(snapshot, PodShape(host_ports=(want,))) == {"a"}) is fits


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (requests(2000), None),
        (requests(2001), RejectReason.INSUFFICIENT_CPU),
        (requests(0, 4001), RejectReason.INSUFFICIENT_MEMORY),
        (requests(0, 0, **{"example.test/gpu": 2}), RejectReason.INSUFFICIENT_RESOURCE),
        (requests(0, 0, **{"example.test/gpu": 1}), None),
        (PodShape(requests=Resources(ephemeral_storage=1)), RejectReason.INSUFFICIENT_RESOURCE),
        (requests(9000, 9000), RejectReason.INSUFFICIENT_CPU),
    ],
)
def test_resources(shape: PodShape, reason: RejectReason | None) -> None:
    room = node("a", cpu=5000, memory=10000, extended={"example.test/gpu": 4})
    snapshot = cluster([room], [pod("a", shape=requests(3000, 6000, **{"example.test/gpu": 3}))])
    assert rejections(snapshot, shape).get("a") is reason


def test_pods_without_requests_fit_overcommitted_nodes_but_need_a_slot() -> None:
    busy = [pod("a", shape=requests(9000))]
    assert feasible(cluster([node("a", cpu=5000)], busy), PodShape()) == {"a"}
    assert rejections(cluster([node("a", cpu=5000, max_pods=1)], busy), PodShape()) == {"a": RejectReason.TOO_MANY_PODS}


def hard(key: str, skew: int = 1, selector: LabelSelector | None = FOO, **more: object) -> PodShape:
    return PodShape(spread=(SpreadConstraint(skew, key, hard=True, selector=selector, **more),))  # type: ignore[arg-type]


def spread(numbers: dict[str, int]) -> list[Pod]:
    return [pod(name, labels={"foo": ""}) for name, number in numbers.items() for _ in range(number)]


ALL = set(ZONES)


@pytest.mark.parametrize(
    ("shape", "pods", "expected"),
    [
        pytest.param(hard("zone"), [], ALL, id="no pods"),
        pytest.param(
            hard("zone"),
            [pod("a", labels={"foo": ""}, namespace="ns1"), *spread({"x": 1, "y": 1})],
            {"a", "b"},
            id="other namespaces do not count",
        ),
        pytest.param(hard("zone", selector=None), spread({"x": 1, "y": 1}), ALL, id="null selector"),
        pytest.param(hard("zone"), spread({"a": 2, "b": 1, "y": 3}), ALL, id="3/3"),
        pytest.param(hard("rack"), [], set(), id="no node has the label"),
        pytest.param(hard("node"), spread({"a": 2, "b": 1, "y": 3}), {"x"}, id="2/1/0/3"),
        pytest.param(hard("node", 2), spread({"a": 2, "b": 1, "y": 3}), {"b", "x"}, id="2/1/0/3, maxSkew 2"),
        pytest.param(hard("zone", 2, min_domains=3), spread({"a": 2, "x": 1}), {"x", "y"}, id="too few domains"),
        pytest.param(hard("zone", 2, min_domains=2), spread({"a": 2, "x": 1}), ALL, id="domains enough"),
        pytest.param(
            hard("node"), [pod("a", labels={"foo": ""}, deleted_at=1.0)], ALL, id="terminating pods do not count"
        ),
    ],
)
def test_hard_spread(shape: PodShape, pods: list[Pod], expected: set[str]) -> None:
    assert feasible(cluster(zoned(), pods), shape, foo="") == expected


def test_hard_spread_of_pods_that_do_not_match_themselves() -> None:
    assert feasible(cluster(zoned(), spread({"a": 2, "b": 1, "y": 3})), hard("node"), bar="") == {"b", "x"}


def test_hard_spread_counts_only_nodes_that_node_affinity_admits() -> None:
    shape = PodShape(
        spread=hard("node").spread,
        affinity=Affinity(required_node_terms=(NodeSelectorTerm((Requirement("node", Operator.IN, ("a", "y")),)),)),
    )
    assert feasible(cluster(zoned(), spread({"a": 2, "b": 1, "y": 3})), shape, foo="") == {"a"}


def test_match_label_keys_of_a_template_narrow_the_selector() -> None:
    pods = [pod("a", labels={"foo": "", "rev": "1"}) for _ in range(2)]
    shape = hard("node", match_label_keys=("rev", "absent"))
    assert feasible(cluster(zoned(), pods), shape, foo="", rev="2") == ALL
    assert feasible(cluster(zoned(), pods), shape, foo="", rev="1") == ALL - {"a"}


def term(key: str = "zone", selector: LabelSelector | None = FOO, **more: object) -> PodAffinityTerm:
    return PodAffinityTerm(key, selector, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("affinity", "pods", "expected"),
    [
        pytest.param(Affinity(required_pod_affinity=(term(),)), [], set(), id="nobody to be with"),
        pytest.param(Affinity(required_pod_affinity=(term(),)), spread({"a": 1}), {"a", "b"}, id="with"),
        pytest.param(Affinity(required_pod_anti_affinity=(term(),)), spread({"a": 1}), {"x", "y"}, id="without"),
        pytest.param(
            Affinity(required_pod_anti_affinity=(term("node"),)), spread({"a": 1}), {"b", "x", "y"}, id="host"
        ),
        pytest.param(
            Affinity(required_pod_affinity=(term(), term("node", LabelSelector((("bar", ""),))))),
            [pod("a", labels={"foo": "", "bar": ""}), *spread({"x": 1})],
            {"a"},
            id="one pod has to match all terms",
        ),
        pytest.param(Affinity(required_pod_affinity=(term(selector=None),)), spread({"a": 1}), set(), id="null"),
        pytest.param(
            Affinity(required_pod_affinity=(term(namespaces=("other",)),)), spread({"a": 1}), set(), id="namespace"
        ),
        pytest.param(
            Affinity(required_pod_affinity=(term(namespace_selector=LabelSelector()),)),
            [pod("x", labels={"foo": ""}, namespace="other")],
            {"x", "y"},
            id="every namespace",
        ),
    ],
)
def test_required_pod_affinity(affinity: Affinity, pods: list[Pod], expected: set[str]) -> None:
    snapshot = cluster(zoned(), pods, namespaces=[Namespace("default"), Namespace("other")])
    assert feasible(snapshot, PodShape(affinity=affinity), app="web") == expected


def test_the_first_pod_that_wants_its_own_kind_may_enter_any_labelled_node() -> None:
    nodes = [*zoned(), node("bare", labels={HOSTNAME: "bare"})]
    shape = PodShape(affinity=Affinity(required_pod_affinity=(term(),)))
    assert feasible(cluster(nodes), shape, foo="") == ALL
    assert feasible(cluster(nodes, spread({"y": 1})), shape, foo="") == {"x", "y"}


def test_existing_pods_keep_others_away() -> None:
    guard = pod("a", shape=PodShape(affinity=Affinity(required_pod_anti_affinity=(term(),))))
    snapshot = cluster(zoned(), [guard])
    assert feasible(snapshot, PodShape(), foo="") == {"x", "y"}
    assert feasible(snapshot, PodShape(), app="web") == ALL


def test_the_first_filter_in_the_schedulers_order_is_named() -> None:
    bad = node("a", unschedulable=True, taints=(Taint("t"),), cpu=1)
    tainted = node("b", taints=(Taint("t"),), cpu=1)
    small = node("c", cpu=1)
    assert rejections(cluster([bad, tainted, small]), requests(500)) == {
        "a": RejectReason.NODE_UNSCHEDULABLE,
        "b": RejectReason.TAINT_TOLERATION,
        "c": RejectReason.INSUFFICIENT_CPU,
    }


def by_names(*fields: tuple[str, ...], **labels: str) -> NodeSelectorTerm:
    requirements = tuple(Requirement("metadata.name", Operator.IN, names) for names in fields)
    return NodeSelectorTerm(
        tuple(Requirement(key, Operator.IN, (value,)) for key, value in labels.items()), requirements
    )


@pytest.mark.parametrize(
    ("terms", "first"),
    [
        pytest.param((by_names(("b",)),), RejectReason.NODE_AFFINITY, id="nodes are named"),
        pytest.param((by_names(("a", "b"), ("b",)),), RejectReason.NODE_AFFINITY, id="by both requirements"),
        pytest.param((by_names(("a",), pool="x"),), RejectReason.NODE_UNSCHEDULABLE, id="this one, too"),
        pytest.param((by_names(("b",)), by_names(pool="x")), RejectReason.NODE_UNSCHEDULABLE, id="not in all terms"),
        pytest.param((), RejectReason.NODE_UNSCHEDULABLE, id="no terms"),
    ],
)
def test_where_nodes_are_named_no_other_filter_sees_the_rest(
    terms: tuple[NodeSelectorTerm, ...], first: RejectReason
) -> None:
    snapshot = cluster([node("a", unschedulable=True), node("b")])
    assert rejections(snapshot, PodShape(affinity=Affinity(required_node_terms=terms)))["a"] is first
