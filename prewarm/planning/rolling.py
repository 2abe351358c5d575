"""Which other workloads create pods meanwhile? Their rollouts, covered or not: room that they take is taken."""

from functools import cached_property, partial

from prewarm.demand import demands
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import PodShape
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement import ClusterArrays, between_steps, columns_of, in_time, meets
from prewarm.placement.arrays import Ints

MOST_RIVAL_PODS = 100
"""Pods of others that are played beside one demand's, at most: each costs as much as a pod of the demand."""
ALL_RIVAL_PODS = 400
"""The same for all demands together, so that a hundred rollouts at once do not cost a hundred times as much each."""


_KINDS = frozenset({"Deployment", "StatefulSet", "CloneSet", "AdvancedStatefulSet", "Rollout"})
"""Whose status tells at a glance whether a rollout is under way, and whose pods the scheduler places."""


class Rolling:
    """The rollouts of one snapshot; which there are is looked up when the first demand asks.

    What one brings is worked out when a demand may meet it: of fifty in pools of their own, none for another.
    """

    def __init__(self, snapshot: ClusterSnapshot, history: History) -> None:
        self._snapshot = snapshot
        self._history = history
        self._demands: dict[WorkloadKey, tuple[Demand, ...]] = {}
        self._standings: dict[WorkloadKey, Ints] = {}

    def beside(self, demand: Demand, cluster: ClusterArrays) -> tuple[Demand, ...]:
        """What others bring to a demand's nodes until its last pod comes."""
        if demand.is_fixed:
            return ()
        shape, snapshot = demand.template.shape, self._snapshot
        met = [
            other
            for key in self._under_way
            if key != demand.workload and self._may_meet(shape, snapshot.workloads[key], cluster)
            for other in self._brought_by(key)
            if meets(shape, other.template.shape, other.pods, cluster, partial(self._leaving, other, cluster))
        ]
        return in_time(demand, met, min(MOST_RIVAL_PODS, ALL_RIVAL_PODS // max(1, len(met))))

    @cached_property
    def _under_way(self) -> tuple[WorkloadKey, ...]:
        return tuple(sorted(key for key, workload in self._snapshot.workloads.items() if _may_roll(workload)))

    def _may_meet(self, ours: PodShape, other: Workload, cluster: ClusterArrays) -> bool:
        """Whether a rollout could be met, if it brought as many pods as it can and all of its old ones left.

        A Deployment's brings pods of its own template, at most its replicas; of other kinds this is not known before.
        """
        if other.key.kind != "Deployment":
            return True
        return meets(ours, other.template.shape, other.replicas, cluster, lambda: self._standing(other, cluster))

    def _standing(self, workload: Workload, cluster: ClusterArrays) -> Ints:
        """Where pods of a workload's ReplicaSets are: asked by each demand that may meet it, looked up once."""
        known = self._standings.get(workload.key)
        if known is None:
            snapshot = self._snapshot
            owned = snapshot.replica_sets_by_owner.get(workload.uid, {})
            pods = (pod for found in owned.values() for pod in snapshot.pods_by_owner.get(found.uid, {}).values())
            known = self._standings[workload.key] = columns_of(pods, cluster)
        return known

    def _leaving(self, demand: Demand, cluster: ClusterArrays) -> Ints:
        pods = self._snapshot.pods
        return columns_of((pods[key] for key in demand.leaving if key in pods), cluster)

    def _brought_by(self, key: WorkloadKey) -> tuple[Demand, ...]:
        if key not in self._demands:
            try:
                wanted = demands(self._snapshot, key, Policy(), self._history)
            except ValueError:
                # Its strategy cannot be read: whoever it belongs to hears of it where it is planned.
                wanted = ()
            # Fifty of these take as long as fifty pods.
            between_steps()()
            self._demands[key] = tuple(one for one in wanted if one.trigger is Trigger.ROLLOUT and one.batches)
        return self._demands[key]


def _may_roll(workload: Workload) -> bool:
    """By the status that its controller writes, which costs nothing to read."""
    if workload.key.kind not in _KINDS or workload.paused or not workload.replicas or workload.deleted_at is not None:
        return False
    seen = workload.observed_generation >= workload.generation
    return not seen or workload.updated_replicas < max(workload.replicas, workload.status_replicas)
