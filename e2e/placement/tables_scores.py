"""Scores: two nodes compete, and a handicap from another score measures by how many points one is better."""

from collections.abc import Mapping

from e2e.placement.rows import HOST, Object, Row, Standing, asking, bracket, container
from e2e.placement.tables_neighbours import APP, ZONE, apps, constraint, required, term
from prewarm.model.intents import Json

Nodes = Mapping[str, Mapping[str, Json]]
_EQUAL: Nodes = {"a": {}, "b": {}}
_THREE: Nodes = {"a": {}, "b": {}, "c": {}}
_ON_B = {"b": 0, "a": 2}
"""Two points for `b`, where `a` should have none."""


def _loaded(**requests: str) -> tuple[Standing, ...]:
    """A pod on `b`; what it does not ask for counts nothing."""
    return (Standing("b", spec=asking(**{"cpu": "0", "memory": "0", **requests})),)


LEAST_ALLOCATED = (
    *bracket("free CPU", 20, _EQUAL, standing=_loaded(cpu="40")),
    *bracket("free memory", 25, _EQUAL, standing=_loaded(memory="50Gi")),
    *bracket(
        "who names no requests counts as 100m and 200Mi",
        14,
        {"b": {"allocatable": {"cpu": "1", "memory": "1000Mi"}}, "a": {}},
        spec={"containers": [container({})]},
    ),
    *bracket(
        "standing pods that name no requests count as much",
        14,
        {"b": {"allocatable": {"cpu": "1", "memory": "1000Mi"}}, "a": {}},
        standing=(
            Standing("a", spec={"containers": [container({})]}),
            Standing("b", spec={"containers": [container({})]}),
        ),
    ),
    *bracket(
        "limits count where no requests are named",
        45,
        {"b": {"allocatable": {"cpu": "10", "memory": "10Gi"}}, "a": {}},
        spec={"containers": [container({}, {"cpu": "5", "memory": "5Gi"})]},
    ),
)
BALANCED_ALLOCATION = (
    *bracket(
        "the pod tips the balance", 15, _EQUAL, spec=asking(cpu="30", memory="0"), standing=_loaded(memory="60Gi")
    ),
    *bracket("shares end at the whole", 45, _EQUAL, spec=asking(memory="10Gi", cpu="0"), standing=_loaded(cpu="150")),
)


def _image(name: str = "registry.test/@:v1") -> Object:
    return {"containers": [container(image=name)]}


def _holding(mib: int, *also: str, name: str = "registry.test/@:v1") -> Nodes:
    holds: Mapping[str, Json] = {"images": {name: mib}}
    return {"a": holds, "b": {}, **dict.fromkeys(also, holds)}


_WITH_ANOTHER: Object = {
    "containers": [container(image="registry.test/@:v1"), container(name="beside", image="registry.test/none:v1")]
}
IMAGE_LOCALITY = (
    *bracket("half a gigabyte", 48, _holding(500), spec=_image()),
    *bracket("just above the least that counts", 1, _holding(40), spec=_image()),
    Row("just below it", _holding(22), _image(), handicap=_ON_B),
    *bracket("the most that counts", 100, _holding(5000), spec=_image()),
    *bracket(
        "more containers raise the ceiling",
        49,
        _holding(1000),
        spec=_WITH_ANOTHER,
    ),
    *bracket(
        "an init container raises the ceiling",
        24,
        _holding(500),
        spec={"initContainers": [container(name="before", image="registry.test/@:v1")]},
    ),
    *bracket("the more nodes hold it, the more it counts", 48, _holding(250, "c"), spec=_image()),
    *bracket(
        "an image volume counts",
        48,
        _holding(500),
        spec={"volumes": [{"name": "v", "image": {"reference": "registry.test/@:v1"}}]},
    ),
    *bracket("no tag is the latest", 48, _holding(500, name="registry.test/@:latest"), spec=_image("registry.test/@")),
    Row(
        "a name without its registry is not found",
        _holding(500, name="docker.io/library/@:v1"),
        _image("@:v1"),
        handicap=_ON_B,
    ),
)


def _reluctant(**numbers: int) -> Nodes:
    """Nodes with so many taints that pods should rather avoid."""
    return {
        name: {"taints": [{"key": f"k{index}", "effect": "PreferNoSchedule"} for index in range(number)]}
        for name, number in numbers.items()
    }


TAINT_TOLERATION = (
    *bracket("one taint of two", 150, _reluctant(a=1, b=2)),
    *bracket("one and two taints of four", 75, _reluctant(a=1, b=2, c=4)),
    *bracket(
        "a tolerated taint counts nothing",
        150,
        _reluctant(a=2, b=3),
        spec={"tolerations": [{"key": "k0", "operator": "Exists"}]},
    ),
    Row(
        "NoSchedule tolerated costs nothing",
        {"a": {"taints": [{"key": "x", "effect": "NoSchedule"}]}, "b": {}},
        {"tolerations": [{"operator": "Exists"}]},
        handicap={"a": 0, "b": 2},
    ),
    Row(
        "a toleration of NoExecute does not help",
        _reluctant(a=1, b=2),
        {"tolerations": [{"key": "k1", "operator": "Exists", "effect": "NoExecute"}]},
        handicap={"a": 100, "b": 0},
    ),
)

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _wishes(*wishes: tuple[int, Object]) -> Object:
    """Preferred node affinity."""
    terms: list[Json] = [{"weight": weight, "preference": preference} for weight, preference in wishes]
    return {"affinity": {"nodeAffinity": {_PREFERRED: terms}}}


def _expression(key: str, operator: str, *values: str) -> Object:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}


_LABELLED: Nodes = {
    "a": {"labels": {"disk": "ssd", "rank": "7"}},
    "b": {"labels": {"disk": "ssd", "rank": "5"}},
    "c": {},
}
NODE_AFFINITY = (
    *bracket(
        "weights add up",
        80,
        _LABELLED,
        by_pods=True,
        spec=_wishes((30, _expression("disk", "In", "ssd")), (20, _expression("rank", "Gt", "5"))),
    ),
    *bracket(
        "the best has all points, however small its weight",
        134,
        _LABELLED,
        by_pods=True,
        spec=_wishes((3, _expression("rank", "In", "7")), (1, _expression("rank", "In", "5"))),
    ),
    *bracket(
        "a node by name",
        134,
        _LABELLED,
        by_pods=True,
        spec=_wishes(
            (60, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["@-a"]}]}),
            (20, _expression("rank", "Lt", "6")),
        ),
    ),
    Row("an empty term prefers nothing", _THREE, _wishes((50, {})), handicap=_ON_B, by_pods=True),
)


def _zoned(**zones: str) -> Nodes:
    return {name: {"labels": {ZONE: f"@-{zone}"}} for name, zone in zones.items()}


def _soft(*constraints: Object, **spec: Json) -> Object:
    return {"topologySpreadConstraints": constraints, **spec}


def _own(**numbers: int) -> tuple[Standing, ...]:
    """Pods of the workload itself."""
    return tuple(Standing(on, {"app": "@"}, owned=True) for on, number in numbers.items() for _ in range(number))


def _aside(key: str) -> Nodes:
    """Two zones, and one more node in the first that is tainted."""
    apart: Mapping[str, Json] = {"labels": {key: "1"}, "taints": [{"key": "x", "effect": "NoSchedule"}]}
    return {"a": {"labels": {key: "1"}}, "b": {"labels": {key: "2"}}, "d": apart}


_KEY = "@/zone"
POD_TOPOLOGY_SPREAD = (
    *bracket("pods of nodes", 34, _THREE, spec=_soft(constraint(HOST, hard=False)), standing=apps(a=1, b=2, c=4)),
    *bracket(
        "maxSkew softens it", 26, _THREE, spec=_soft(constraint(HOST, 3, hard=False)), standing=apps(a=1, b=2, c=4)
    ),
    *bracket(
        "pods of zones",
        150,
        _zoned(a="1", b="2", c="2"),
        spec=_soft(constraint(hard=False)),
        standing=apps(a=1, b=2, c=1),
    ),
    *bracket(
        "two constraints",
        20,
        _zoned(a="1", b="2", c="2"),
        spec=_soft(constraint(hard=False), constraint(HOST, hard=False)),
        standing=apps(a=2, b=1, c=3),
    ),
    Row(
        "a node without the label has no points",
        {"a": {}, "b": _zoned(b="1")["b"]},
        _soft(constraint(hard=False)),
        handicap={"a": 0, "b": 196},
    ),
    Row("tainted nodes are counted", _aside(_KEY), _soft(constraint(_KEY, hard=False)), apps(b=1, d=3), handicap=_ON_B),
    Row(
        "nodeTaintsPolicy Honor",
        _aside(_KEY),
        _soft(constraint(_KEY, hard=False, nodeTaintsPolicy="Honor")),
        apps(b=1, d=3),
        handicap=_ON_B,
    ),
    Row(
        "matchLabelKeys count the own revision",
        _EQUAL,
        _soft(constraint(HOST, hard=False, matchLabelKeys=["rev"])),
        (Standing("a", {"app": "@", "rev": "1"}), Standing("b", {"app": "@", "rev": "2"})),
        {"app": "@", "rev": "2"},
        handicap=_ON_B,
    ),
    Row(
        "terminating pods do not count",
        _EQUAL,
        _soft(constraint(HOST, hard=False)),
        apps(a=3, state="Terminating"),
        handicap={"a": 0, "b": 2},
    ),
    *bracket("the system's defaults count the owner's pods", 26, _THREE, standing=_own(a=1, b=2, c=4)),
    *bracket("the system's defaults count zones, too", 86, _zoned(a="1", b="2", c="2"), standing=_own(a=1, b=2, c=4)),
    Row(
        "the system's defaults count nobody else's", _EQUAL, standing=apps(a=3), service=True, handicap={"a": 0, "b": 2}
    ),
    *bracket(
        "the system's defaults follow a Service where nobody owns the pod",
        26,
        _THREE,
        standing=apps(a=1, b=2, c=4),
        service=True,
        bare=True,
    ),
    Row(
        "without owner and Service there are no defaults",
        _EQUAL,
        standing=apps(a=3),
        bare=True,
        handicap={"a": 0, "b": 2},
    ),
    Row(
        "own constraints replace the defaults",
        _EQUAL,
        _soft(constraint(ZONE, hard=False, selector=APP)),
        _own(a=3),
        handicap={"a": 0, "b": 2},
    ),
)


def _liking(*likings: tuple[int, str], sign: str = "podAffinity", **more: Json) -> Object:
    """Preferred pod affinity, or anti-affinity, to pods with the label."""
    terms: list[Json] = [
        {"weight": weight, "podAffinityTerm": term(HOST, {"matchLabels": {"app": label}}, **more)}
        for weight, label in likings
    ]
    return {"affinity": {sign: {_PREFERRED: terms}}}


def _friend(on: str, label: str, namespace: str = "default") -> Standing:
    return Standing(on, {"app": label}, namespace=namespace)


_HARD = required("podAffinity", term(HOST))
_AWAY = "podAntiAffinity"
INTER_POD_AFFINITY = (
    *bracket(
        "weights",
        68,
        _THREE,
        spec=_liking((60, "one-@"), (40, "two-@")),
        standing=(_friend("a", "one-@"), _friend("b", "two-@")),
    ),
    *bracket(
        "each pod counts",
        68,
        _THREE,
        spec=_liking((20, "one-@")),
        standing=(*(_friend("a", "one-@"),) * 3, *(_friend("b", "one-@"),) * 2),
    ),
    *bracket(
        "aversion",
        134,
        _THREE,
        spec=_liking((20, "one-@"), (60, "two-@"), (80, "three-@"), sign=_AWAY),
        standing=(_friend("a", "one-@"), _friend("b", "two-@"), _friend("c", "three-@")),
    ),
    *bracket(
        "others' likings",
        68,
        _THREE,
        standing=(Standing("a", spec=_liking((60, "@"))), Standing("b", spec=_liking((40, "@")))),
    ),
    *bracket(
        "others' aversion",
        134,
        _THREE,
        standing=tuple(Standing(on, spec=_liking((w, "@"), sign=_AWAY)) for on, w in (("a", 20), ("b", 60), ("c", 80))),
    ),
    *bracket(
        "what others require counts 1",
        68,
        _THREE,
        standing=(*(Standing("a", {"app": "@"}, _HARD),) * 3, Standing("b", spec=_liking((2, "@")))),
    ),
    Row(
        "other namespaces are not meant",
        _EQUAL,
        _liking((60, "one-@")),
        (_friend("a", "one-@", "@-other"),),
        namespaces={"@-other": {"team": "@"}},
        handicap=_ON_B,
    ),
    Row(
        "namespaces by label",
        _EQUAL,
        _liking((60, "one-@"), namespaceSelector={"matchLabels": {"team": "@"}}),
        (_friend("a", "one-@", "@-other"),),
        namespaces={"@-other": {"team": "@"}},
        handicap=_ON_B,
    ),
    Row(
        "matchLabelKeys mean the own revision",
        _EQUAL,
        _liking((60, "@"), matchLabelKeys=["rev"]),
        (Standing("a", {"app": "@", "rev": "2"}), *(Standing("b", {"app": "@", "rev": "1"}),) * 3),
        {"app": "@", "rev": "2"},
        handicap=_ON_B,
    ),
)
