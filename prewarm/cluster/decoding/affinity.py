"""Affinity, tolerations and spread constraints of a pod spec."""

from msgspec import Struct

from prewarm.cluster.decoding.common import (
    WireSelector,
    WireTerm,
    label_selector,
    node_selector_term,
)
from prewarm.cluster.decoding.problems import Report
from prewarm.model.pods import (
    Affinity,
    PodAffinityTerm,
    PreferredNodeTerm,
    SpreadConstraint,
    Toleration,
    WeightedPodAffinityTerm,
)


class WireNodeSelector(Struct, rename="camel", gc=False):
    """v1.NodeSelector."""

    node_selector_terms: list[WireTerm] | None = None


class WirePreferredTerm(Struct, gc=False):
    """v1.PreferredSchedulingTerm."""

    weight: int = 0
    preference: WireTerm | None = None


class WireNodeAffinity(Struct, gc=False):
    """v1.NodeAffinity."""

    requiredDuringSchedulingIgnoredDuringExecution: WireNodeSelector | None = None  # noqa: N815 - the API's spelling
    preferredDuringSchedulingIgnoredDuringExecution: list[WirePreferredTerm] | None = None  # noqa: N815


class WirePodTerm(Struct, rename="camel", gc=False):
    """v1.PodAffinityTerm; matchLabelKeys are merged into the selector by the API server when a pod is created."""

    topology_key: str = ""
    label_selector: WireSelector | None = None
    namespaces: list[str] | None = None
    namespace_selector: WireSelector | None = None
    match_label_keys: list[str] | None = None
    mismatch_label_keys: list[str] | None = None


class WireWeightedPodTerm(Struct, rename="camel", gc=False):
    """v1.WeightedPodAffinityTerm."""

    weight: int = 0
    pod_affinity_term: WirePodTerm | None = None


class WirePodAffinity(Struct, gc=False):
    """v1.PodAffinity and v1.PodAntiAffinity."""

    requiredDuringSchedulingIgnoredDuringExecution: list[WirePodTerm] | None = None  # noqa: N815
    preferredDuringSchedulingIgnoredDuringExecution: list[WireWeightedPodTerm] | None = None  # noqa: N815


class WireAffinity(Struct, rename="camel", gc=False):
    """v1.Affinity."""

    node_affinity: WireNodeAffinity | None = None
    pod_affinity: WirePodAffinity | None = None
    pod_anti_affinity: WirePodAffinity | None = None


class WireSpread(Struct, rename="camel", gc=False):
    """v1.TopologySpreadConstraint."""

    max_skew: int = 1
    topology_key: str = ""
    when_unsatisfiable: str = ""
    label_selector: WireSelector | None = None
    min_domains: int | None = None
    match_label_keys: list[str] | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None


class WireToleration(Struct, gc=False):
    """v1.Toleration."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


def affinity(wire: WireAffinity | None, report: Report) -> Affinity:
    """spec.affinity."""
    if wire is None:
        return Affinity()
    node = wire.node_affinity or WireNodeAffinity()
    with_pods = wire.pod_affinity or WirePodAffinity()
    against_pods = wire.pod_anti_affinity or WirePodAffinity()
    required = node.requiredDuringSchedulingIgnoredDuringExecution
    return Affinity(
        required_node_terms=None
        if required is None
        else tuple(node_selector_term(term, report) for term in required.node_selector_terms or ()),
        preferred_node_terms=tuple(
            PreferredNodeTerm(term.weight, node_selector_term(term.preference, report))
            for term in node.preferredDuringSchedulingIgnoredDuringExecution or ()
            if term.preference is not None
        ),
        required_pod_affinity=_terms(with_pods, report),
        preferred_pod_affinity=_weighted_terms(with_pods, report),
        required_pod_anti_affinity=_terms(against_pods, report),
        preferred_pod_anti_affinity=_weighted_terms(against_pods, report),
    )


def tolerations(wires: list[WireToleration] | None) -> tuple[Toleration, ...]:
    """spec.tolerations; an absent operator means Equal."""
    return tuple(Toleration(wire.key, wire.operator or "Equal", wire.value, wire.effect) for wire in wires or ())


def spread_constraints(wires: list[WireSpread] | None, report: Report) -> tuple[SpreadConstraint, ...]:
    """spec.topologySpreadConstraints; absent policies have the API's defaults (affinity honoured, taints ignored)."""
    return tuple(
        SpreadConstraint(
            max_skew=wire.max_skew,
            topology_key=wire.topology_key,
            hard=wire.when_unsatisfiable != "ScheduleAnyway",
            selector=label_selector(wire.label_selector, report),
            min_domains=wire.min_domains or 1,
            match_label_keys=tuple(wire.match_label_keys or ()),
            honor_node_affinity=wire.node_affinity_policy != "Ignore",
            honor_node_taints=wire.node_taints_policy == "Honor",
        )
        for wire in wires or ()
    )


def _term(wire: WirePodTerm, report: Report) -> PodAffinityTerm:
    return PodAffinityTerm(
        topology_key=wire.topology_key,
        selector=label_selector(wire.label_selector, report),
        namespaces=tuple(sorted(wire.namespaces or ())),
        namespace_selector=label_selector(wire.namespace_selector, report),
        match_label_keys=tuple(wire.match_label_keys or ()),
        mismatch_label_keys=tuple(wire.mismatch_label_keys or ()),
    )


def _terms(wire: WirePodAffinity, report: Report) -> tuple[PodAffinityTerm, ...]:
    return tuple(_term(term, report) for term in wire.requiredDuringSchedulingIgnoredDuringExecution or ())


def _weighted_terms(wire: WirePodAffinity, report: Report) -> tuple[WeightedPodAffinityTerm, ...]:
    return tuple(
        WeightedPodAffinityTerm(term.weight, _term(term.pod_affinity_term, report))
        for term in wire.preferredDuringSchedulingIgnoredDuringExecution or ()
        if term.pod_affinity_term is not None
    )
