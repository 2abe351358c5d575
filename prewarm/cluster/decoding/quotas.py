"""ResourceQuotas and LimitRanges, as far as pods go."""

from msgspec import Struct, field

from prewarm.cluster.decoding.common import Scalar, WireMeta
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.requests import amounts
from prewarm.model.quantities import milli
from prewarm.model.quotas import Limit, LimitRange, LimitType, ResourceQuota, ScopeMatch

_CPU = frozenset({"cpu", "requests.cpu", "limits.cpu"})
_OF_PODS = frozenset(
    {
        "pods",
        "count/pods",
        "cpu",
        "memory",
        *(f"{kind}.{name}" for kind in ("requests", "limits") for name in ("cpu", "memory", "ephemeral-storage")),
    }
)
"""Constraints that every pod uses; a quota may hold hundreds of others."""


class WireScopeMatch(Struct, rename="camel", gc=False):
    """v1.ScopedResourceSelectorRequirement."""

    scope_name: str = ""
    operator: str = ""
    values: list[str] | None = None


class WireScopeSelector(Struct, rename="camel", gc=False):
    """v1.ScopeSelector."""

    match_expressions: list[WireScopeMatch] | None = None


class WireQuotaSpec(Struct, rename="camel", gc=False):
    """v1.ResourceQuotaSpec."""

    hard: dict[str, Scalar] | None = None
    scopes: list[str] | None = None
    scope_selector: WireScopeSelector | None = None


class WireQuotaStatus(Struct, gc=False):
    """v1.ResourceQuotaStatus."""

    hard: dict[str, Scalar] | None = None
    used: dict[str, Scalar] | None = None


class WireQuota(Struct, gc=False):
    """v1.ResourceQuota."""

    metadata: WireMeta
    spec: WireQuotaSpec = field(default_factory=WireQuotaSpec)
    status: WireQuotaStatus = field(default_factory=WireQuotaStatus)


class WireLimit(Struct, rename="camel", gc=False):
    """v1.LimitRangeItem."""

    type: str = ""
    min: dict[str, Scalar] | None = None
    max: dict[str, Scalar] | None = None
    max_limit_request_ratio: dict[str, Scalar] | None = None


class WireLimitRangeSpec(Struct, gc=False):
    """v1.LimitRangeSpec."""

    limits: list[WireLimit] | None = None


class WireLimitRange(Struct, gc=False):
    """v1.LimitRange."""

    metadata: WireMeta
    spec: WireLimitRangeSpec = field(default_factory=WireLimitRangeSpec)


def resource_quota(wire: WireQuota, report: Report) -> ResourceQuota:
    """A quota; before its controller has looked at it, nothing is used and spec.hard holds."""
    spec, status = wire.spec, wire.status
    selected = (spec.scope_selector.match_expressions if spec.scope_selector else None) or ()
    return ResourceQuota(
        wire.metadata.namespace,
        wire.metadata.name,
        _amounts(spec.hard if status.hard is None else status.hard, report),
        _amounts(status.used, report),
        (
            *(ScopeMatch(scope) for scope in spec.scopes or ()),
            *(ScopeMatch(match.scope_name, match.operator, tuple(match.values or ())) for match in selected),
        ),
        wire.metadata.resource_version,
    )


def limit_range(wire: WireLimitRange, report: Report) -> LimitRange:
    """A LimitRange; defaults are left out, since pullers name what they need."""
    limits = []
    for item in wire.spec.limits or ():
        if item.type in {LimitType.CONTAINER, LimitType.POD}:
            ratio = {name: milli_ratio / 1000 for name, milli_ratio in _ratios(item.max_limit_request_ratio, report)}
            limits.append(Limit(LimitType(item.type), amounts(item.min, report), amounts(item.max, report), ratio))
    return LimitRange(wire.metadata.namespace, wire.metadata.name, tuple(limits), wire.metadata.resource_version)


def _amounts(quantities: dict[str, Scalar] | None, report: Report) -> dict[str, int]:
    known = {name: quantity for name, quantity in (quantities or {}).items() if name in _OF_PODS}
    parsed = amounts({name: quantity for name, quantity in known.items() if name not in _CPU}, report)
    for name in known.keys() & _CPU:
        parsed.update((name, amount) for amount in amounts({"cpu": known[name]}, report).values())
    return parsed


def _ratios(quantities: dict[str, Scalar] | None, report: Report) -> list[tuple[str, int]]:
    found = []
    for name, quantity in (quantities or {}).items():
        try:
            found.append((name, milli(str(quantity))))
        except ValueError as error:
            report(f"maxLimitRequestRatio of {name}: {error}")
    return [(name, ratio) for name, ratio in found if ratio > 0]
