"""Label selectors and node selector terms with the matching rules of apimachinery and component-helpers."""

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

Labels = Mapping[str, str]


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


def integer(text: str) -> int | None:
    """A number as Go's strconv.ParseInt(text, 10, 64) reads it; None where it does not (`1_000`, which int() takes)."""
    if _INTEGER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


class Operator(StrEnum):
    """Operators of label selector and node selector requirements."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class Requirement(Struct, frozen=True):
    """One requirement on a label (or, in matchFields, on metadata.name)."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether the labels meet it; NotIn holds where the label is absent (apimachinery labels.Requirement)."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GT | Operator.LT:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        left, right = integer(value or ""), integer(self.values[0] if self.values else "")
        if left is None or right is None:
            return False
        return left > right if self.operator is Operator.GT else left < right


class LabelSelector(Struct, frozen=True):
    """metav1.LabelSelector; without any requirement it matches everything."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether all requirements hold."""
        return all(labels.get(key) == value for key, value in self.match_labels) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class NodeSelectorTerm(Struct, frozen=True):
    """v1.NodeSelectorTerm; an empty term matches no node."""

    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()

    def matches(self, node_name: str, labels: Labels) -> bool:
        """Whether a node meets every requirement (component-helpers/scheduling/corev1/nodeaffinity)."""
        if not self.match_expressions and not self.match_fields:
            return False
        return all(requirement.matches(labels) for requirement in self.match_expressions) and all(
            requirement.matches({"metadata.name": node_name}) for requirement in self.match_fields
        )
