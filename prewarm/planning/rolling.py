"""Which other workloads create pods meanwhile? Their rollouts, covered or not: room that they take is taken."""

from functools import cached_property

from prewarm.demand import demands
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload
from prewarm.placement import ClusterArrays, in_time, meets

MOST_RIVAL_PODS = 100
"""Pods of others that are played beside one demand's, at most: each costs as much as a pod of the demand."""
ALL_RIVAL_PODS = 400
"""The same for all demands together, so that a hundred rollouts at once do not cost a hundred times as much each."""


_KINDS = frozenset({"Deployment", "StatefulSet", "CloneSet", "AdvancedStatefulSet", "Rollout"})
"""Whose status tells at a glance whether a rollout is under way, and whose pods the scheduler places."""


class Rolling:
    """The rollouts of one snapshot; they are looked for once, when the first demand asks."""

    def __init__(self, snapshot: ClusterSnapshot, history: History) -> None:
        self._snapshot = snapshot
        self._history = history

    def beside(self, demand: Demand, cluster: ClusterArrays) -> tuple[Demand, ...]:
        """What others bring to a demand's nodes until its last pod comes."""
        if demand.is_fixed or not self._demands:
            return ()
        shape, snapshot = demand.template.shape, self._snapshot
        met = [
            other
            for other in self._demands
            if meets(shape, other.template.shape, other.pods, snapshot, cluster, other.leaving)
        ]
        return in_time(demand, met, min(MOST_RIVAL_PODS, ALL_RIVAL_PODS // max(1, len(met))))

    @cached_property
    def _demands(self) -> tuple[Demand, ...]:
        found: list[Demand] = []
        for key in sorted(key for key, workload in self._snapshot.workloads.items() if _may_roll(workload)):
            try:
                wanted = demands(self._snapshot, key, Policy(), self._history)
            except ValueError:
                # Its strategy cannot be read: whoever it belongs to hears of it where it is planned.
                continue
            found += (demand for demand in wanted if demand.trigger is Trigger.ROLLOUT and demand.batches)
        return tuple(found)


def _may_roll(workload: Workload) -> bool:
    """By the status that its controller writes, which costs nothing to read."""
    if workload.key.kind not in _KINDS or workload.paused or not workload.replicas or workload.deleted_at is not None:
        return False
    seen = workload.observed_generation >= workload.generation
    return not seen or workload.updated_replicas < max(workload.replicas, workload.status_replicas)
