"""What the scheduler knows beside pods and nodes: how important pods are, and which of them may be disturbed."""

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.pods import PodShape
from prewarm.model.selectors import LabelSelector


class PriorityClass(Struct, frozen=True):
    """A PriorityClass: admission writes its value and policy into pods, templates only name it."""

    name: str
    value: int = 0
    preempts: bool = True
    is_default: bool = False
    """Whether pods that name none get it (globalDefault)."""


class DisruptionBudget(Struct, frozen=True):
    """A PodDisruptionBudget. Without requirements its selector matches nothing for the scheduler."""

    namespace: str
    name: str
    selector: LabelSelector | None = None
    allowed: int = 0
    """status.disruptionsAllowed."""
    disrupted: frozenset[str] = frozenset()
    """Names of pods whose eviction is counted in `allowed` already."""

    def protects(self, namespace: str, name: str, labels: Mapping[str, str]) -> bool:
        """Whether taking this pod away uses the budget up (filterPodsWithPDBViolation, 1.36)."""
        selector = self.selector
        if selector is None or not (selector.match_labels or selector.match_expressions):
            return False
        if namespace != self.namespace or name in self.disrupted or not labels:
            return False
        return selector.matches(labels)


def with_priority(shape: PodShape, classes: Mapping[str, PriorityClass]) -> PodShape:
    """A template's shape as pods of it have it: the Priority admission plugin resolves the class.

    A class that is not known leaves the shape as it is.
    """
    found = classes.get(shape.priority_class) if shape.priority_class else _default(classes.values())
    if found is None or (found.value == shape.priority and found.preempts == shape.preempts):
        return shape
    return replace(shape, priority=found.value, preempts=found.preempts and shape.preempts)


def _default(classes: Iterable[PriorityClass]) -> PriorityClass | None:
    """Of several defaults the lowest counts (plugin/pkg/admission/priority)."""
    return min((one for one in classes if one.is_default), key=lambda one: (one.value, one.name), default=None)
