"""What all kinds share: metadata, timestamps, selectors, and one object for equal values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern

import durationpy
from msgspec import Struct, field

from prewarm.cluster.decoding.problems import Report
from prewarm.model.pods import OwnerReference
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement

OUR_ANNOTATIONS = "prewarm.dev/"
"""Annotations of other people are not kept: they may be 256 KiB an object."""
_CACHED_LABEL_SETS = 65536
_LONGEST_DURATION = 1e8
_LONGEST_DURATION_TEXT = 64
Scalar = str | int | float | bool
"""Quantities and ports as people and servers write them."""


class WireOwner(Struct, rename="camel", gc=False):
    """metav1.OwnerReference."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    controller: bool | None = None


class WireMeta(Struct, rename="camel", gc=False):
    """metav1.ObjectMeta; also ListMeta-like objects that come with bookmarks."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[WireOwner] | None = None


class WireRequirement(Struct, gc=False):
    """metav1.LabelSelectorRequirement and v1.NodeSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class WireSelector(Struct, rename="camel", gc=False):
    """metav1.LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[WireRequirement] | None = None


class WireTerm(Struct, rename="camel", gc=False):
    """v1.NodeSelectorTerm."""

    match_expressions: list[WireRequirement] | None = None
    match_fields: list[WireRequirement] | None = None


class WireCondition(Struct, rename="camel", gc=False):
    """Conditions of pods and nodes."""

    type: str = ""
    status: str = ""
    reason: str = ""
    last_transition_time: str | None = None


class WireObject(Struct, rename="camel"):
    """Any object, as far as knowing which one it is."""

    metadata: WireMeta = field(default_factory=WireMeta)


@lru_cache(maxsize=65536)
def _unix(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def unix(text: str | None) -> float | None:
    """RFC 3339 as Unix seconds; None for none and for nonsense."""
    return _unix(text) if text else None


def go_seconds(text: str) -> float | None:
    """A Go duration such as 90s, 10m or 1h30m in seconds, at most three years; None for nonsense."""
    try:
        seconds = durationpy.from_str(text).total_seconds() if len(text) <= _LONGEST_DURATION_TEXT else -1.0
    except (durationpy.DurationError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LONGEST_DURATION else None


@lru_cache(maxsize=_CACHED_LABEL_SETS)
def _shared(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {intern(key): intern(value) for key, value in pairs}


def shared_mapping(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """Equal label sets as one object, which nobody may change."""
    return _shared(tuple(labels.items())) if labels else _NO_LABELS


_NO_LABELS: Mapping[str, str] = {}


def kept_annotations(annotations: Mapping[str, str] | None, *prefixes: str) -> Mapping[str, str]:
    """Those under prewarm.dev/ and the given prefixes."""
    if not annotations:
        return _NO_LABELS
    wanted = (OUR_ANNOTATIONS, *prefixes)
    return shared_mapping({key: value for key, value in annotations.items() if key.startswith(wanted)})


@lru_cache(maxsize=16384)
def _owner(kind: str, name: str, uid: str, api_version: str) -> OwnerReference:
    return OwnerReference(intern(kind), intern(name), intern(uid), intern(api_version))


def controlling_owner(meta: WireMeta) -> OwnerReference | None:
    """The owner that has controller: true; pods of one workload share it."""
    for owner in meta.owner_references or ():
        if owner.controller:
            return _owner(owner.kind, owner.name, owner.uid, owner.api_version)
    return None


def sorted_pairs(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """A mapping as a hashable value in a fixed order."""
    return tuple(sorted(mapping.items())) if mapping else ()


def requirements(wires: list[WireRequirement] | None, report: Report) -> tuple[Requirement, ...] | None:
    """None if one has an operator that nobody knows: then it cannot be said what matches."""
    result = []
    for wire in wires or ():
        try:
            operator = Operator(wire.operator)
        except ValueError:
            report(f"selector operator {wire.operator!r} is unknown")
            return None
        result.append(Requirement(wire.key, operator, tuple(wire.values or ())))
    return tuple(result)


def label_selector(wire: WireSelector | None, report: Report) -> LabelSelector | None:
    """None matches nothing, as a nil LabelSelector does; so does one that cannot be understood."""
    if wire is None:
        return None
    expressions = requirements(wire.match_expressions, report)
    return None if expressions is None else LabelSelector(sorted_pairs(wire.match_labels), expressions)


def node_selector_term(wire: WireTerm, report: Report) -> NodeSelectorTerm:
    """A term that cannot be understood becomes the empty one, which matches no node."""
    expressions = requirements(wire.match_expressions, report)
    fields = requirements(wire.match_fields, report)
    if expressions is None or fields is None:
        return NodeSelectorTerm()
    return NodeSelectorTerm(expressions, fields)
