"""What do the containers of a puller pod request? Little, within what LimitRanges and quotas of the namespace ask."""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct

from prewarm.model.intents import Json
from prewarm.model.quotas import LimitRange, LimitType, ResourceQuota

REQUEST_MILLI_CPU = 10
REQUEST_MEMORY = 16 * 2**20
"""What quotas and the scheduler count for each container, in millicores and bytes."""
_REQUESTS: Mapping[str, int] = {"cpu": REQUEST_MILLI_CPU, "memory": REQUEST_MEMORY, "ephemeral-storage": 2**20}
_LIMITS: Mapping[str, int] = {"cpu": 100, "memory": 64 * 2**20, "ephemeral-storage": 64 * 2**20}
"""What starting a container at all takes: runc's own start runs inside them, takes seconds at 10m and is killed at
16Mi. Images do not count as ephemeral storage, the binary that is copied does."""
_ALWAYS = frozenset({"cpu", "memory"})
"""Ephemeral storage is named only where it has to be."""


class ContainerResources(Struct, frozen=True):
    """Requests and limits of every container of a puller pod: millicores and bytes by resource name."""

    requests: Mapping[str, int]
    limits: Mapping[str, int]

    def manifest(self) -> Json:
        """As a container's `resources`."""
        return {
            "requests": {name: _quantity(name, amount) for name, amount in self.requests.items()},
            "limits": {name: _quantity(name, amount) for name, amount in self.limits.items()},
        }

    def of_pod(self, containers: int) -> dict[str, int]:
        """What a pod with so many containers uses of a quota, by the quota's names. No init container counts extra."""
        used = {"pods": 1, "count/pods": 1}
        for name, amount in self.requests.items():
            used[f"requests.{name}"] = amount * containers
            if name in _ALWAYS:
                used[name] = amount * containers
        for name, amount in self.limits.items():
            used[f"limits.{name}"] = amount * containers
        return used


USUAL = ContainerResources(
    {name: _REQUESTS[name] for name in ("cpu", "memory")}, {name: _LIMITS[name] for name in ("cpu", "memory")}
)


class _Bounds:
    """What all limits of a namespace say of one resource of a container together."""

    def __init__(self) -> None:
        self.least, self.most, self.ratio = 0, math.inf, math.inf
        self.named = False


def resources_within(
    ranges: Iterable[LimitRange], quotas: Iterable[ResourceQuota], containers: int
) -> ContainerResources:
    """Requests and limits that the LimitRanger and the quotas of a namespace accept, as near to the usual as can be.

    Rules of plugin/pkg/admission/limitranger: a minimum concerns requests and limits, a maximum limits, a ratio both.
    Those for pods are shared among the containers. A minimum above a maximum is the server's to report.

    Args:
        ranges: LimitRanges of the namespace.
        quotas: ResourceQuotas of the namespace: one on ephemeral storage refuses pods that name none.
        containers: of the pod, without the init container, which asks for no more than one of them.
    """
    bounds = {name: _Bounds() for name in _REQUESTS}
    for limit in (limit for found in ranges for limit in found.limits):
        shares = containers if limit.type is LimitType.POD else 1
        for name, amount in limit.minimum.items():
            if name in bounds:
                bounds[name].least = max(bounds[name].least, -(-amount // shares))
                bounds[name].named = True
        for name, amount in limit.maximum.items():
            if name in bounds:
                bounds[name].most = min(bounds[name].most, amount // shares)
                bounds[name].named = True
        for name, ratio in limit.ratio.items():
            if name in bounds:
                bounds[name].ratio = min(bounds[name].ratio, ratio)
                bounds[name].named = True
    counted = {name.partition(".")[2] for quota in quotas for name in quota.hard}
    requests, limits = {}, {}
    for name, bound in bounds.items():
        if name in _ALWAYS or bound.named or name in counted:
            limit_amount = int(min(max(_LIMITS[name], bound.least), bound.most))
            least = max(bound.least, math.ceil(limit_amount / bound.ratio))
            requests[name] = min(max(_REQUESTS[name], least), limit_amount)
            limits[name] = limit_amount
    return ContainerResources(requests, limits)


def _quantity(name: str, amount: int) -> str:
    if name == "cpu":
        return f"{amount}m"
    return f"{amount // 2**20}Mi" if amount % 2**20 == 0 else str(amount)
