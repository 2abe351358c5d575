"""Label selectors and node selector terms as objects write them."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from prewarm.api.fields import ApiModel, LabelKey, LabelMap, LabelValue, cel, rules
from prewarm.model.intents import Json
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement

_IN_HAS_VALUES = "operators In and NotIn need values, Exists and DoesNotExist take none"


class RequirementFields(ApiModel):
    """A requirement on a label."""

    key: LabelKey
    """The label's name."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In and NotIn compare with the values; Exists and DoesNotExist take none."""
    values: Annotated[
        list[LabelValue], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Values for In and NotIn."""

    @model_validator(mode="after")
    def _values_fit(self) -> "RequirementFields":
        if (self.operator in {"In", "NotIn"}) != bool(self.values):
            raise ValueError(_IN_HAS_VALUES)
        return self


_VALUES_FIT = cel("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)", _IN_HAS_VALUES)


class SelectorFields(ApiModel):
    """A label selector; an empty one matches everything."""

    match_labels: LabelMap = Field(default_factory=dict)
    """Labels that must be there with these values."""
    match_expressions: Annotated[
        list[Annotated[RequirementFields, Field(json_schema_extra=rules(_VALUES_FIT))]],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = Field(default_factory=list)
    """Requirements that must all hold."""


Selector = Annotated[SelectorFields | None, Field(json_schema_extra={"x-kubernetes-map-type": "atomic"})]


_ONE_INTEGER = "operators Gt and Lt need one whole number in values"
_INTEGER = r"^-?[0-9]{1,18}$"


class NodeRequirementFields(ApiModel):
    """A requirement on a node's label."""

    key: LabelKey
    """The label's name."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """In and NotIn compare with the values, Gt and Lt with one whole number; Exists and DoesNotExist take none."""
    values: Annotated[
        list[LabelValue], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Values for In, NotIn, Gt and Lt."""

    @model_validator(mode="after")
    def _values_fit(self) -> "NodeRequirementFields":
        if self.operator in {"Gt", "Lt"}:
            if len(self.values) != 1 or re.fullmatch(_INTEGER, self.values[0], re.ASCII) is None:
                raise ValueError(_ONE_INTEGER)
        elif (self.operator in {"In", "NotIn"}) != bool(self.values):
            raise ValueError(_IN_HAS_VALUES)
        return self


_NODE_VALUES_FIT = cel(
    "self.operator in ['Gt', 'Lt'] || "
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    _IN_HAS_VALUES,
)
_ONE_INTEGER_FITS = cel(
    "!(self.operator in ['Gt', 'Lt']) || "
    f"(has(self.values) && size(self.values) == 1 && self.values[0].matches('{_INTEGER}'))",
    _ONE_INTEGER,
)


class NodeSelectorTermFields(ApiModel):
    """Requirements that a node must all meet."""

    match_expressions: Annotated[
        list[Annotated[NodeRequirementFields, Field(json_schema_extra=rules(_NODE_VALUES_FIT, _ONE_INTEGER_FITS))]],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """Requirements on the node's labels."""


def label_selector(fields: SelectorFields | None) -> LabelSelector | None:
    """As the core matches it; None if there is none."""
    if fields is None:
        return None
    return LabelSelector(
        match_labels=tuple(sorted(fields.match_labels.items())),
        match_expressions=tuple(
            Requirement(r.key, Operator(r.operator), tuple(r.values)) for r in fields.match_expressions
        ),
    )


def node_selector_term(fields: NodeSelectorTermFields) -> NodeSelectorTerm:
    """As the core matches it."""
    return NodeSelectorTerm(
        match_expressions=tuple(
            Requirement(r.key, Operator(r.operator), tuple(r.values)) for r in fields.match_expressions
        )
    )


def selector_manifest(selector: LabelSelector) -> dict[str, Json]:
    """A label selector to write; what is empty is left out."""
    fields: dict[str, Json] = {}
    if selector.match_labels:
        fields["matchLabels"] = dict(selector.match_labels)
    if selector.match_expressions:
        fields["matchExpressions"] = [_requirement(r) for r in selector.match_expressions]
    return fields


def term_manifest(term: NodeSelectorTerm) -> dict[str, Json]:
    """A node selector term to write."""
    return {"matchExpressions": [_requirement(r) for r in term.match_expressions]}


def _requirement(requirement: Requirement) -> dict[str, Json]:
    fields: dict[str, Json] = {"key": requirement.key, "operator": requirement.operator.value}
    if requirement.values:
        fields["values"] = list(requirement.values)
    return fields
