"""Filters that look at the pods on other nodes: hard topology spread, required pod affinity and anti-affinity."""

from collections.abc import Mapping

from e2e.placement.rows import HOST, Object, Row, Standing
from prewarm.model.intents import Json

ZONE = "topology.kubernetes.io/zone"
THREE: Mapping[str, Mapping[str, Json]] = {
    "a": {"labels": {ZONE: "@-1"}},
    "b": {"labels": {ZONE: "@-1"}},
    "x": {"labels": {ZONE: "@-2"}},
}
TWO: Mapping[str, Mapping[str, Json]] = {"a": THREE["a"], "x": THREE["x"]}
APP: Object = {"matchLabels": {"app": "@"}}


def apps(namespace: str = "default", state: str = "", **numbers: int) -> tuple[Standing, ...]:
    """So many pods with the label that selectors here ask for, on each node."""
    return tuple(
        Standing(on, {"app": "@"}, namespace=namespace, state=state)
        for on, number in numbers.items()
        for _ in range(number)
    )


def constraint(key: str = ZONE, skew: int = 1, selector: Json = APP, *, hard: bool = True, **more: Json) -> Object:
    """A topology spread constraint."""
    return {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule" if hard else "ScheduleAnyway",
        **({} if selector is None else {"labelSelector": selector}),
        **more,
    }


def _spread(
    shows: str,
    *constraints: Object,
    standing: tuple[Standing, ...] = (),
    nodes: Mapping[str, Mapping[str, Json]] = TWO,
    labels: Mapping[str, str] | None = None,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    **spec: Json,
) -> Row:
    return Row(
        shows,
        nodes,
        {"topologySpreadConstraints": constraints, **spec},
        standing,
        labels or {"app": "@"},
        together=True,
        namespaces=namespaces or {},
    )


_TAINTED: Mapping[str, Mapping[str, Json]] = {
    **TWO,
    "t": {"labels": {ZONE: "@-3"}, "taints": [{"key": "x", "effect": "NoSchedule"}]},
}
_LABELLED: Mapping[str, Mapping[str, Json]] = {
    "a": {"labels": {"@/zone": "1", "pool": "web"}},
    "x": {"labels": {"@/zone": "2", "pool": "web"}},
    "o": {"labels": {"@/zone": "3"}},
}
"""Nodes of which one is out of reach; the key is the copy's own, since policy Ignore counts the whole cluster."""
_REVISED = (Standing("a", {"app": "@", "rev": "1"}), Standing("x", {"app": "@", "rev": "2"}))
POD_TOPOLOGY_SPREAD = (
    _spread("nobody is there", constraint()),
    _spread("the fuller zone is too full", constraint(), standing=apps(a=1)),
    _spread("zones, not nodes, are counted", constraint(), standing=apps(a=1, x=1), nodes=THREE),
    _spread("nodes are counted", constraint(HOST), standing=apps(a=2, b=1, x=3), nodes=THREE),
    _spread("maxSkew 2", constraint(HOST, 2), standing=apps(a=2, b=1, x=3), nodes=THREE),
    _spread("both constraints hold", constraint(), constraint(HOST), standing=apps(a=1, x=1), nodes=THREE),
    _spread("without a selector nobody is counted", constraint(selector=None), standing=apps(a=3)),
    _spread("an empty selector counts nobody", constraint(selector={}), standing=apps(a=3)),
    _spread("who does not match itself adds nothing", constraint(), standing=apps(a=1), labels={"role": "other"}),
    _spread("a node without the label", constraint(), nodes={**TWO, "n": {}}),
    _spread("nobody has the label", constraint("@/rack")),
    _spread("terminating pods do not count", constraint(), standing=apps(a=1, state="Terminating")),
    _spread("finished pods do not count", constraint(), standing=apps(a=1, state="Succeeded")),
    _spread("other namespaces do not count", constraint(), standing=apps("@-other", a=1), namespaces={"@-other": {}}),
    _spread("too few domains count as one that is empty", constraint(minDomains=3), standing=apps(a=1, x=1)),
    _spread("enough domains", constraint(minDomains=2), standing=apps(a=1, x=1)),
    _spread("too few domains, but empty", constraint(minDomains=3), standing=apps(a=1)),
    _spread(
        "nodes out of reach are not counted",
        constraint("@/zone"),
        standing=apps(a=1, x=1),
        nodes=_LABELLED,
        nodeSelector={"pool": "web"},
    ),
    _spread(
        "nodeAffinityPolicy Ignore",
        constraint("@/zone", nodeAffinityPolicy="Ignore"),
        standing=apps(a=1, x=1),
        nodes=_LABELLED,
        nodeSelector={"pool": "web"},
    ),
    _spread("tainted nodes are counted", constraint(), standing=apps(a=1, x=1), nodes=_TAINTED),
    _spread("nodeTaintsPolicy Honor", constraint(nodeTaintsPolicy="Honor"), standing=apps(a=1, x=1), nodes=_TAINTED),
    _spread(
        "nodeTaintsPolicy Honor and a toleration",
        constraint(nodeTaintsPolicy="Honor"),
        standing=apps(a=1, x=1),
        nodes=_TAINTED,
        tolerations=[{"operator": "Exists"}],
    ),
    _spread(
        "matchLabelKeys count the own revision",
        constraint(matchLabelKeys=["rev"]),
        standing=_REVISED,
        labels={"app": "@", "rev": "2"},
    ),
    _spread(
        "matchLabelKeys that the pod lacks narrow nothing",
        constraint(matchLabelKeys=["absent"]),
        standing=_REVISED[:1],
        labels={"app": "@", "rev": "2"},
    ),
)


def term(key: str = ZONE, selector: Json = APP, **more: Json) -> Object:
    """A term of pod affinity."""
    return {"topologyKey": key, **({} if selector is None else {"labelSelector": selector}), **more}


def required(kind: str, *terms: Object) -> Object:
    """A spec that requires terms of a kind."""
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


_WITH, _WITHOUT = "podAffinity", "podAntiAffinity"
_OTHER = {"role": "other"}


def _near(
    shows: str,
    spec: Object,
    *standing: Standing,
    nodes: Mapping[str, Mapping[str, Json]] = TWO,
    labels: Mapping[str, str] | None = None,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
) -> Row:
    return Row(shows, nodes, spec, standing, labels or _OTHER, together=True, namespaces=namespaces or {})


def _guard(on: str, *terms: Object, namespace: str = "default", state: str = "", **labels: str) -> Standing:
    """A pod that keeps others away."""
    return Standing(on, labels, required(_WITHOUT, *terms), namespace, state)


_SPACES: Mapping[str, Mapping[str, str]] = {"@-other": {"team": "@"}}
_ALL_SPACES: Object = {}
_TEAM: Object = {"matchLabels": {"team": "@"}}
_BAR: Object = {"matchLabels": {"bar": "@"}}
INTER_POD_AFFINITY = (
    _near("nobody to be with", required(_WITH, term())),
    _near("with others in their zone", required(_WITH, term()), *apps(a=1), nodes=THREE),
    _near("with others on their node", required(_WITH, term(HOST)), *apps(a=1), nodes=THREE),
    _near("away from others' zone", required(_WITHOUT, term()), *apps(a=1), nodes=THREE),
    _near("away from others' node", required(_WITHOUT, term(HOST)), *apps(a=1), nodes=THREE),
    _near("two zones to stay away from", required(_WITHOUT, term()), *apps(a=1, x=1)),
    _near(
        "one pod has to meet all terms",
        required(_WITH, term(), term(selector=_BAR)),
        *apps(a=1),
        Standing("a", {"bar": "@"}),
    ),
    _near(
        "a pod that meets all terms",
        required(_WITH, term(), term(HOST, _BAR)),
        Standing("a", {"app": "@", "bar": "@"}),
        *apps(x=1),
        nodes=THREE,
    ),
    _near(
        "any term of anti-affinity suffices",
        required(_WITHOUT, term(), term(HOST, _BAR)),
        *apps(a=1),
        Standing("x", {"bar": "@"}),
        nodes=THREE,
    ),
    _near("no selector means nobody", required(_WITH, term(selector=None)), *apps(a=1)),
    _near("no selector keeps nobody away", required(_WITHOUT, term(selector=None)), *apps(a=1)),
    _near("an empty selector means all", required(_WITH, term(HOST, {})), Standing("a")),
    _near(
        "a node without the label is no place to be with", required(_WITH, term()), *apps(a=1), nodes={**TWO, "n": {}}
    ),
    _near(
        "a node without the label is away from all",
        required(_WITHOUT, term()),
        *apps(a=1, x=1, n=1),
        nodes={**TWO, "n": {}},
    ),
    _near("the first of its kind", required(_WITH, term()), nodes={**TWO, "n": {}}, labels={"app": "@"}),
    _near("the second of its kind", required(_WITH, term()), *apps(a=1), labels={"app": "@"}),
    _near(
        "the first of its kind meets not all its terms",
        required(_WITH, term(), term(selector=_BAR)),
        labels={"app": "@"},
    ),
    _near("terminating pods are there", required(_WITH, term()), *apps(a=1, state="Terminating")),
    _near("terminating pods keep away", required(_WITHOUT, term()), *apps(a=1, state="Terminating")),
    _near("finished pods are not there", required(_WITH, term()), *apps(a=1, state="Succeeded")),
    _near(
        "others keep away whom they want away",
        {},
        _guard(
            "a",
            term(selector={"matchLabels": {"role": "other"}}, namespaceSelector=_TEAM, namespaces=["default"]),
            state="",
        ),
        nodes=THREE,
        namespaces=_SPACES,
        labels={**_OTHER, "app": "@"},
    ),
    _near("others keep away their own kind", {}, _guard("a", term(), app="@"), nodes=THREE, labels={"app": "@"}),
    _near("others do not mind", {}, _guard("a", term(selector=_BAR)), labels={"app": "@"}),
    _near("others keep away while they terminate", {}, _guard("a", term(), state="Terminating"), labels={"app": "@"}),
    _near(
        "others of another namespace mean their own",
        {},
        _guard("a", term(), namespace="@-other"),
        namespaces=_SPACES,
        labels={"app": "@"},
    ),
    _near(
        "others of another namespace mean ours",
        {},
        _guard("a", term(namespaces=["default"]), namespace="@-other"),
        namespaces=_SPACES,
        labels={"app": "@"},
    ),
    _near("another namespace is not meant", required(_WITH, term()), *apps("@-other", a=1), namespaces=_SPACES),
    _near(
        "a namespace by name",
        required(_WITH, term(namespaces=["@-other"])),
        *apps("@-other", a=1),
        *apps(x=1),
        namespaces=_SPACES,
    ),
    _near(
        "namespaces by label",
        required(_WITH, term(namespaceSelector=_TEAM)),
        *apps("@-other", a=1),
        *apps(x=1),
        namespaces=_SPACES,
    ),
    _near(
        "namespaces by name and by label",
        required(_WITH, term(namespaces=["default"], namespaceSelector=_TEAM)),
        *apps("@-other", a=1),
        *apps(x=1),
        nodes=THREE,
        namespaces=_SPACES,
    ),
    _near(
        "every namespace",
        required(_WITHOUT, term(namespaceSelector=_ALL_SPACES)),
        *apps("@-other", a=1),
        namespaces=_SPACES,
    ),
    _near(
        "matchLabelKeys mean the own revision",
        required(_WITH, term(matchLabelKeys=["rev"])),
        *_REVISED,
        labels={"app": "@", "rev": "2"},
    ),
    _near(
        "mismatchLabelKeys mean the others",
        required(_WITHOUT, term(mismatchLabelKeys=["rev"])),
        *_REVISED,
        labels={"app": "@", "rev": "2"},
    ),
)
