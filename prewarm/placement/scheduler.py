"""One kind of pod before the scheduler: all filters and scores of the default profile, over all replays at once."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from msgspec import Struct

from prewarm.model.plans import RejectReason
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.placement import node_affinity, taints
from prewarm.placement.arrays import Ints, Mask, Scores, normalized
from prewarm.placement.cluster_arrays import ClusterArrays, Usage
from prewarm.placement.image_locality import ExpectedImage, ImageLocality
from prewarm.placement.incoming import IncomingPod, PodView
from prewarm.placement.node_filters import node_filters
from prewarm.placement.pod_affinity import AffinityEffect, PodAffinity
from prewarm.placement.ports import HostPorts
from prewarm.placement.preemption import Gone, Preemption
from prewarm.placement.resources import ResourceFit
from prewarm.placement.sampling import NodeSampling
from prewarm.placement.spread import NodeInclusion, TopologySpread
from prewarm.placement.volumes import Reach, reach

_TAINT_WEIGHT = 3
_NODE_AFFINITY_WEIGHT = 2
_SPREAD_WEIGHT = 2
_POD_AFFINITY_WEIGHT = 2
# NodeResourcesFit, NodeResourcesBalancedAllocation and ImageLocality weigh 1 (default_plugins.go).


class Effect(Struct, frozen=True):
    """What one pod on a node changes for the pods of a scheduler, beside the resources it takes."""

    spread: tuple[bool, ...]
    affinity: AffinityEffect
    ports: int


class PodScheduler:
    """Places pods of one kind; everything that depends on other pods is kept up to date as they land and leave.

    Of another scheduler or profile the filters are taken for the default ones, and nothing for known of its scores: all
    nodes that fit are equally good.
    """

    def __init__(
        self,
        pod: IncomingPod,
        snapshot: ClusterSnapshot,
        cluster: ClusterArrays,
        usage: Usage,
        expected: Mapping[str, ExpectedImage],
        leaving: Collection[ObjectKey] = (),
        gone: Gone | None = None,
    ) -> None:
        """`leaving`: pods that go anyway, for which nobody else has to; `gone`: who went for others' pods."""
        rows = len(usage.pods)
        shape = pod.shape
        self.pod = pod
        self._cluster = cluster
        self._snapshot = snapshot
        self._leaving = leaving
        self._gone = Gone(rows) if gone is None else gone
        self._preemption: Preemption | None = None
        self._static = node_filters(shape, cluster)
        self._volumes = reach(pod.namespace, shape.volume_claims, snapshot, cluster)
        self._eligible: Mask = np.logical_and.reduce([mask for _, mask in self._static])
        if self._volumes is not None:
            self._eligible &= self._volumes.both
        self._unwelcome = taints.unwelcome(shape, cluster)
        self._own_preference = node_affinity.preference(shape, cluster)
        self._preference = self._own_preference
        self.resources = ResourceFit(shape, cluster, usage)
        self._images = ImageLocality(shape, cluster, rows, expected)
        self._image_score = self._images.score()
        inclusion = NodeInclusion(node_affinity.required(shape, cluster), taints.tolerated(shape, cluster))
        self._spread = TopologySpread(pod, snapshot, cluster, inclusion, rows)
        self._affinity = PodAffinity(pod, snapshot, cluster, rows)
        self._ports = HostPorts(pod, snapshot, cluster, rows) if shape.host_ports else None

    def effect(self, other: PodView) -> Effect:
        """What a pod means for the pods of this scheduler."""
        ports = self._ports.effect(other) if self._ports is not None else 0
        return Effect(self._spread.effect(other), self._affinity.effect(other), ports)

    def observe(self, effect: Effect, rows: Ints, columns: Ints, sign: int, *, spread: bool = True) -> None:
        """A pod has landed on (sign 1) or left (-1) these cells; `spread` False: it was terminating, so not counted.

        Resources follow by `resources.refresh`, once for several pods.
        """
        if spread:
            self._spread.apply(effect.spread, rows, columns, sign)
        self._affinity.apply(effect.affinity, rows, columns, sign)
        if self._ports is not None:
            self._ports.apply(effect.ports, rows, columns, sign)

    def prefer(self, nodes: Iterable[str]) -> None:
        """The pods that come from now on prefer these nodes, beyond what their template says."""
        self._preference = node_affinity.with_preferred(nodes, self._own_preference, self._cluster)

    def images_arrive(self, rows: Ints, columns: Ints) -> None:
        """The pod's images are reported by these nodes from now on."""
        self._images.arrive(rows, columns)
        self._image_score = self._images.score()

    def feasible(self, within: Mask | None = None) -> Mask:
        """Where a pod passes every filter, per replay; `within`: where its own volumes can be used."""
        feasible = self.resources.fits & (self._eligible if within is None else self._eligible & within)
        for allowed in self._allowed():
            feasible &= allowed
        if self._ports is not None:
            feasible &= self._ports.free()
        return feasible

    def admitted(self, within: Mask | None = None) -> Mask:
        """Where a pod passes every filter but those of resources and ports."""
        eligible = self._eligible if within is None else self._eligible & within
        admitted = np.broadcast_to(eligible, self.resources.fits.shape)
        for allowed in self._allowed():
            admitted = admitted & allowed
        return admitted

    def _allowed(self) -> list[Mask]:
        """What the filters say that go by other pods, as far as they are in force."""
        affinity = self._affinity.allowed() if self._affinity.matters else None
        return [mask for mask in (self._spread.allowed(), affinity) if mask is not None]

    def make_room(
        self, short: Mask, within: Mask | None, random: np.random.Generator
    ) -> list[tuple[int, int, list[Pod]]]:
        """In replays where the pod fits nowhere: the column where the scheduler makes it fit, and whom it takes away.

        Of another scheduler nobody knows whether it does.
        """
        shape = self.pod.shape
        if not shape.preempts or shape.foreign_scheduler:
            return []
        if self._preemption is None:
            self._preemption = Preemption(
                self._snapshot, self._cluster, self.resources, self._ports, shape.priority, self._leaving, self._gone
            )
        return self._preemption.make_room(short, self.admitted(within), random)

    def choose(
        self, sampling: NodeSampling, preference_of_ties: Scores, active: Mask, within: Mask | None = None
    ) -> tuple[Ints, Mask]:
        """The best node per active replay, and whether there is any; ties go to the larger value in [1, 2)."""
        selected = sampling.select(self.feasible(within), active)
        total = self._total(selected) + preference_of_ties
        total *= selected
        columns: Ints = total.argmax(axis=1)
        return columns, selected[np.arange(len(columns)), columns] & active

    def _total(self, selected: Mask) -> Scores:
        total = self.resources.score
        if self.pod.shape.foreign_scheduler:
            return np.zeros_like(total)
        if self._image_score is not None:
            total = total + self._image_score
        if self._unwelcome is not None:
            total = total + _TAINT_WEIGHT * normalized(self._unwelcome, selected, reverse=True)
        if self._preference is not None:
            total = total + _NODE_AFFINITY_WEIGHT * normalized(self._preference, selected)
        spread = self._spread.score(selected)
        if spread is not None:
            total = total + _SPREAD_WEIGHT * spread
        affinity = self._affinity.score(selected) if self._affinity.matters else None
        if affinity is not None:
            total = total + _POD_AFFINITY_WEIGHT * affinity
        return total

    def rejections(
        self, row: int, own_volumes: Reach | None = None, attachable: Mask | None = None
    ) -> dict[int, RejectReason]:
        """In one replay, the first filter that rejects each infeasible column, in the scheduler's order.

        Args:
            row: of the replay.
            own_volumes: where those of any of the pods can be used.
            attachable: where those of any of the pods can be attached, by replay.
        """
        checks = [(reason, ~mask) for reason, mask in self._static]
        if self._ports is not None:
            checks.append((RejectReason.NODE_PORTS, ~self._ports.free()[row]))
        checks += self.resources.rejections(row)
        if attachable is not None:
            checks.append((RejectReason.VOLUME_LIMITS, ~attachable[row]))
        for volumes in (self._volumes, own_volumes):
            if volumes is not None:
                checks += [(reason, ~mask) for reason, mask in volumes.checks()]
        for reason, allowed in (
            (RejectReason.TOPOLOGY_SPREAD, self._spread.allowed()),
            (RejectReason.POD_AFFINITY, self._affinity.allowed()),
        ):
            if allowed is not None:
                checks.append((reason, ~allowed[row]))
        rejected: dict[int, RejectReason] = {}
        for reason, mask in checks:
            for column in np.flatnonzero(mask):
                rejected.setdefault(int(column), reason)
        return rejected
