"""PriorityClasses, PodDisruptionBudgets and CSINodes."""

from msgspec import Struct, field

from prewarm.cluster.decoding.common import WireMeta, WireSelector, label_selector
from prewarm.cluster.decoding.problems import Report
from prewarm.model.scheduling import DisruptionBudget, PriorityClass
from prewarm.model.volumes import AttachLimits


class WirePriorityClass(Struct, rename="camel", gc=False):
    """scheduling.k8s.io/v1 PriorityClass."""

    metadata: WireMeta
    value: int = 0
    global_default: bool = False
    preemption_policy: str | None = None


class WireBudgetSpec(Struct, gc=False):
    """policy/v1 PodDisruptionBudgetSpec."""

    selector: WireSelector | None = None


class WireBudgetStatus(Struct, rename="camel", gc=False):
    """policy/v1 PodDisruptionBudgetStatus."""

    disruptions_allowed: int = 0
    disrupted_pods: dict[str, str | None] | None = None


class WireBudget(Struct, gc=False):
    """policy/v1 PodDisruptionBudget."""

    metadata: WireMeta
    spec: WireBudgetSpec = field(default_factory=WireBudgetSpec)
    status: WireBudgetStatus = field(default_factory=WireBudgetStatus)


class WireDriverResources(Struct, gc=False):
    """storage.k8s.io/v1 VolumeNodeResources."""

    count: int | None = None


class WireDriver(Struct, gc=False):
    """storage.k8s.io/v1 CSINodeDriver."""

    name: str = ""
    allocatable: WireDriverResources | None = None


class WireCSINodeSpec(Struct, gc=False):
    """storage.k8s.io/v1 CSINodeSpec."""

    drivers: list[WireDriver] | None = None


class WireCSINode(Struct, gc=False):
    """storage.k8s.io/v1 CSINode, named like its node."""

    metadata: WireMeta
    spec: WireCSINodeSpec = field(default_factory=WireCSINodeSpec)


def priority_class(wire: WirePriorityClass, _report: Report) -> PriorityClass:
    """A class and what it is worth."""
    preempts = wire.preemption_policy != "Never"
    return PriorityClass(wire.metadata.name, wire.value, preempts, wire.global_default)


def disruption_budget(wire: WireBudget, report: Report) -> DisruptionBudget:
    """Whom a budget protects, and how many may still go."""
    return DisruptionBudget(
        wire.metadata.namespace,
        wire.metadata.name,
        label_selector(wire.spec.selector, report),
        wire.status.disruptions_allowed,
        frozenset(wire.status.disrupted_pods or ()),
    )


def attach_limits(wire: WireCSINode, _report: Report) -> AttachLimits:
    """Drivers of a node that say how many volumes they attach there; those that do not have no limit."""
    return AttachLimits(
        tuple(
            (driver.name, driver.allocatable.count)
            for driver in wire.spec.drivers or ()
            if driver.allocatable is not None and driver.allocatable.count is not None
        )
    )
