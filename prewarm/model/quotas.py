"""What a namespace may use: ResourceQuota and LimitRange objects. CPU in millicores, all else in base units."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

Amounts = Mapping[str, int]
"""By resource name."""


class ScopeMatch(Struct, frozen=True):
    """One expression of spec.scopeSelector, or a scope alone (operator Exists)."""

    scope: str
    operator: str = "Exists"
    values: tuple[str, ...] = ()


class ResourceQuota(Struct, frozen=True):
    """A ResourceQuota; `hard` and `used` as the API server enforces them (status)."""

    namespace: str
    name: str
    hard: Amounts = {}
    used: Amounts = {}
    scopes: tuple[ScopeMatch, ...] = ()
    resource_version: str = ""


class LimitType(StrEnum):
    """What a limit is for; limits of volume claims do not concern us."""

    CONTAINER = "Container"
    POD = "Pod"


class Limit(Struct, frozen=True):
    """One entry of spec.limits of a LimitRange."""

    type: LimitType
    minimum: Amounts = {}
    maximum: Amounts = {}
    ratio: Mapping[str, float] = {}
    """maxLimitRequestRatio."""


class LimitRange(Struct, frozen=True):
    """A LimitRange."""

    namespace: str
    name: str
    limits: tuple[Limit, ...] = ()
    resource_version: str = ""
