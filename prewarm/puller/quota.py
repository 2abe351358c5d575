"""How much of a namespace's quotas is left for pullers? What its workloads need for their own pods stays free."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prewarm.model.image_caches import ImageCache
from prewarm.model.pods import PodShape, Resources
from prewarm.model.quantities import int_or_percent
from prewarm.model.quotas import ResourceQuota, ScopeMatch
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload
from prewarm.puller.pods import Order
from prewarm.puller.resources import ContainerResources, resources_within

_EXCEEDED = "exceeded quota"
"""Of the API server's message (apiserver/pkg/admission/plugin/resourcequota/controller.go)."""


class Headroom:
    """Reads the quotas of one snapshot, and counts what is ordered on it; used once per snapshot.

    Finished pods do not use a quota's `pods`, requests and limits; they do use `count/pods`.
    """

    def __init__(self, snapshot: ClusterSnapshot, orders: Iterable[Order] = ()) -> None:
        """`orders` are pods that were ordered and have not been seen: no quota may know of them yet."""
        self._snapshot = snapshot
        self._taken: dict[str, Counter[str]] = {}
        self._resources: dict[tuple[str, int], ContainerResources] = {}
        self._reserves: dict[str, Mapping[str, int]] = {}
        self.short: dict[str, str] = {}
        """By namespace, what was not left for a puller, for people."""
        self._workloads: dict[str, list[Workload]] = {}
        if snapshot.quotas:
            for key, workload in snapshot.workloads.items():
                if key.namespace in snapshot.quotas and workload.deleted_at is None:
                    self._workloads.setdefault(key.namespace, []).append(workload)
        for order in orders:
            if order.key not in snapshot.puller_pods:
                self.take(order)

    @property
    def refused(self) -> frozenset[str]:
        """Namespaces in which the quota refuses pods of the workloads themselves."""
        return frozenset(
            namespace
            for namespace, workloads in self._workloads.items()
            if any(_EXCEEDED in workload.replica_failure for workload in workloads)
        )

    def resources(self, namespace: str, containers: int) -> ContainerResources:
        """What each container of a puller pod is to request in a namespace."""
        key = (namespace, containers)
        if key not in self._resources:
            ranges = self._snapshot.limit_ranges.get(namespace, ())
            quotas = self._snapshot.quotas.get(namespace, ())
            self._resources[key] = resources_within(ranges, quotas, containers)
        return self._resources[key]

    def take(self, order: Order) -> None:
        """Count a pod that is being ordered."""
        if order.namespace in self._snapshot.quotas:
            taken = self._taken.setdefault(order.namespace, Counter())
            taken.update(self.resources(order.namespace, order.containers).of_pod(order.containers))

    def allows(self, cache: ImageCache, containers: int) -> bool:
        """Whether one more puller pod of a cache leaves its namespace's workloads what they need.

        What could never be is not for us to judge: the API server refuses it, and says why.
        """
        quotas = self._snapshot.quotas.get(cache.namespace)
        if not quotas:
            return True
        ours = self.resources(cache.namespace, containers).of_pod(containers)
        taken: Mapping[str, int] = self._taken.get(cache.namespace, {})
        for quota in quotas:
            if not concerns_puller(quota, cache.priority_class):
                continue
            reserve = self._reserve(cache.namespace) if _concerns_workloads(quota) else {}
            for name in sorted(quota.hard.keys() & ours.keys()):
                hard, used = quota.hard[name], quota.used.get(name, 0) + taken.get(name, 0)
                kept = reserve.get(name, 0)
                if ours[name] <= hard < used + kept + ours[name]:
                    unit = "m" if name.endswith("cpu") else ""
                    self.short[cache.namespace] = (
                        f"ResourceQuota {quota.name} has {max(0, hard - used)}{unit} of {hard}{unit} {name} left, "
                        f"of which {kept}{unit} are kept for pods of workloads"
                    )
                    return False
        return True

    def _reserve(self, namespace: str) -> Mapping[str, int]:
        """What pods that are missing or come with a rollout under way will use, and the largest surge of one more."""
        known = self._reserves.get(namespace)
        if known is None:
            coming: Counter[str] = Counter()
            largest: dict[str, int] = {}
            for workload in self._workloads.get(namespace, ()):
                of_pod = self._amounts(workload)
                now, surge = self._to_come(workload)
                coming.update({name: amount * now for name, amount in of_pod.items()})
                for name, amount in of_pod.items():
                    largest[name] = max(largest.get(name, 0), amount * surge)
            coming.update(largest)
            known = self._reserves[namespace] = coming
        return known

    def _to_come(self, workload: Workload) -> tuple[int, int]:
        """Pods that are to come now, and those that a rollout would add if it began."""
        autoscaler = self._snapshot.autoscalers.get(workload.key)
        replicas = max(workload.replicas, autoscaler.desired_replicas if autoscaler is not None else 0)
        missing = max(0, replicas - workload.status_replicas)
        surge = _surge(workload, replicas)
        rolls = not workload.paused and (
            workload.observed_generation < workload.generation or workload.updated_replicas < workload.replicas
        )
        if rolls and workload.key.kind == "Deployment":
            return max(missing, replicas + surge - workload.status_replicas), 0
        return missing, surge

    def _amounts(self, workload: Workload) -> dict[str, int]:
        """What one pod of a workload uses: as its template says, or one that is there: LimitRanges add defaults."""
        found = _used_by(workload.template.shape)
        for uid in self._owners(workload):
            for pod in self._snapshot.pods_by_owner.get(uid, {}).values():
                live = _used_by(pod.shape)
                return {name: max(amount, live[name]) for name, amount in found.items()}
        return found

    def _owners(self, workload: Workload) -> Iterator[str]:
        yield workload.uid
        for replica_set in self._snapshot.replica_sets_by_owner.get(workload.uid, {}).values():
            yield replica_set.uid


def concerns_puller(quota: ResourceQuota, priority_class: str) -> bool:
    """Whether a puller pod counts in a quota: it has a deadline, requests, and perhaps a priority class."""
    return all(_matches(match, priority_class) for match in quota.scopes)


def _matches(scope: ScopeMatch, priority_class: str) -> bool:
    match scope.scope:
        case "Terminating" | "NotBestEffort":
            return True
        case "PriorityClass":
            if scope.operator == "In":
                return priority_class in scope.values
            if scope.operator == "NotIn":
                return priority_class not in scope.values
            return bool(priority_class) == (scope.operator == "Exists")
        case _:
            return False


def _concerns_workloads(quota: ResourceQuota) -> bool:
    """Whether pods of workloads may count in it: they have no deadline."""
    return not any(match.scope == "Terminating" for match in quota.scopes)


def _surge(workload: Workload, replicas: int) -> int:
    if workload.strategy is not UpdateStrategy.ROLLING_UPDATE or workload.key.kind == "StatefulSet":
        return 0
    try:
        return max(0, int_or_percent(workload.max_surge, replicas, round_up=True))
    except ValueError:
        return 0


def _used_by(shape: PodShape) -> dict[str, int]:
    """What a pod uses of a quota; requests that are left out are as the limits (pkg/apis/core/v1/defaults.go)."""
    limits = _named(shape.limits)
    requests = {name: amount or limits[name] for name, amount in _named(shape.requests).items()}
    return {
        "pods": 1,
        "count/pods": 1,
        "cpu": requests["cpu"],
        "memory": requests["memory"],
        **{f"requests.{name}": amount for name, amount in requests.items()},
        **{f"limits.{name}": amount for name, amount in limits.items()},
    }


def _named(resources: Resources) -> dict[str, int]:
    return {
        "cpu": resources.milli_cpu,
        "memory": resources.memory,
        "ephemeral-storage": resources.ephemeral_storage,
    }
