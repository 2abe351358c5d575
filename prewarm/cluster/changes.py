"""Which workloads, caches and nodes were touched, so that only those are planned again."""

import asyncio

from msgspec import Struct

from prewarm.model.snapshot import ObjectKey
from prewarm.model.workloads import WorkloadKey


class Changes(Struct, frozen=True):
    """What was touched since the last time of asking."""

    workloads: frozenset[WorkloadKey] = frozenset()
    """Their own object, a ReplicaSet, a pod or an autoscaler of theirs."""
    intended: frozenset[WorkloadKey] = frozenset()
    """Of those, the ones that came, went, or whose spec changed: somebody wants something else."""
    image_caches: frozenset[ObjectKey] = frozenset()
    """Their own object or a pod of theirs."""
    nodes: frozenset[str] = frozenset()
    """Their own object or their NodeImage."""
    used_nodes: frozenset[str] = frozenset()
    """A pod came to them, left them, or changed there."""
    namespaces: frozenset[str] = frozenset()
    """Their own object, a Service or a bound PersistentVolumeClaim in them."""
    policies: frozenset[str] = frozenset()
    quotas: frozenset[str] = frozenset()
    """Namespaces of which a ResourceQuota or LimitRange changed."""
    image_policies: frozenset[ObjectKey] = frozenset()
    """Of Flux."""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


class ChangeCollector:
    """Collects Changes and wakes whoever waits for them."""

    def __init__(self) -> None:
        self.workloads: set[WorkloadKey] = set()
        self.intended: set[WorkloadKey] = set()
        self.image_caches: set[ObjectKey] = set()
        self.nodes: set[str] = set()
        self.used_nodes: set[str] = set()
        self.namespaces: set[str] = set()
        self.policies: set[str] = set()
        self.quotas: set[str] = set()
        self.image_policies: set[ObjectKey] = set()
        self.happened = asyncio.Event()

    def take(self) -> Changes:
        """What was collected since the last call."""
        collected = (
            self.workloads,
            self.intended,
            self.image_caches,
            self.nodes,
            self.used_nodes,
            self.namespaces,
            self.policies,
            self.quotas,
            self.image_policies,
        )
        changes = Changes(
            frozenset(self.workloads),
            frozenset(self.intended),
            frozenset(self.image_caches),
            frozenset(self.nodes),
            frozenset(self.used_nodes),
            frozenset(self.namespaces),
            frozenset(self.policies),
            frozenset(self.quotas),
            frozenset(self.image_policies),
        )
        for names in collected:
            names.clear()
        self.happened.clear()
        return changes
