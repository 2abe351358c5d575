"""What a pod requests, as the scheduler counts it (component-helpers/resource/helpers.go, PodRequests)."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from prewarm.cluster.decoding.common import Scalar
from prewarm.cluster.decoding.problems import Report
from prewarm.model.pods import Resources
from prewarm.model.quantities import milli, whole

_LARGEST = 2**53
"""Amounts beyond (9 PB, say) count as this: a thousand of them still add up in 64 bits, whatever somebody asks for."""
Quantities = Mapping[str, Scalar]
Amounts = dict[str, int]
"""By resource name: CPU in millicores, all else in base units."""

SCORING_DEFAULTS: Amounts = {"cpu": 100, "memory": 200 * 2**20}
"""schedutil.DefaultMilliCPURequest and DefaultMemoryRequest: what a container without requests counts in scores."""


class WireResources(Struct, gc=False):
    """v1.ResourceRequirements."""

    requests: dict[str, Scalar] | None = None
    limits: dict[str, Scalar] | None = None


class RequestingContainer(Struct, frozen=True, gc=False):
    """A container as far as its requests go; `restartable` is a sidecar among the init containers."""

    requests: Amounts
    restartable: bool = False


def amounts(quantities: Quantities | None, report: Report) -> Amounts:
    """Parsed quantities; one that cannot be parsed counts as absent."""
    result: Amounts = {}
    for name, quantity in (quantities or {}).items():
        parse: Callable[[str], int] = milli if name == "cpu" else whole
        try:
            result[name] = min(max(parse(str(quantity)), 0), _LARGEST)
        except ValueError as error:
            report(f"{name}: {error}")
    return result


def pod_requests(
    init: Iterable[RequestingContainer],
    containers: Iterable[RequestingContainer],
    pod_level: Amounts,
    overhead: Amounts,
    defaults: Amounts,
) -> Amounts:
    """The larger of what runs together and what each init phase needs, then pod-level amounts, plus overhead.

    `defaults` stand in for resources that a container does not name; an explicit 0 stays 0.
    """
    total: Amounts = {}
    for container in containers:
        _add(total, defaults | container.requests)
    sidecars: Amounts = {}
    phases: Amounts = {}
    for container in init:
        needed = defaults | container.requests
        if container.restartable:
            _add(total, needed)
            _add(sidecars, needed)
            phase = sidecars
        else:
            phase = dict(needed)
            _add(phase, sidecars)
        for name, amount in phase.items():
            phases[name] = max(amount, phases.get(name, 0))
    for name, amount in phases.items():
        total[name] = max(amount, total.get(name, 0))
    total |= pod_level
    _add(total, overhead)
    return total


def as_resources(total: Amounts) -> Resources:
    """The model's view; whatever is not one of the three usual resources is extended."""
    usual = {"cpu", "memory", "ephemeral-storage", "pods"}
    return Resources(
        total.get("cpu", 0),
        total.get("memory", 0),
        total.get("ephemeral-storage", 0),
        tuple(sorted((name, amount) for name, amount in total.items() if amount and name not in usual)),
    )


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
