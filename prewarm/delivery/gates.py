"""Which held rollouts may go? Every hold ends: when its nodes are warm, when warming failed, or when its time is up."""

from collections.abc import Collection, Iterator
from enum import StrEnum

import durationpy
from msgspec import Struct

from prewarm.api.names import ANNOTATION_GATE, ANNOTATION_GATE_HELD
from prewarm.api.plan_annotation import PlanSummary, planned_for
from prewarm.demand import Hold, covering_policy, hold
from prewarm.model.image_caches import ImageCache, PolicyMode
from prewarm.model.intents import DEPLOYMENTS, STATEFUL_SETS, OpenGate, RecordEvent, Resource
from prewarm.model.nodes import Node
from prewarm.model.plans import DemandPlan, Plan, SkipReason, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.times import believed
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.placement import is_found, lists
from prewarm.planning import LISTED_SECONDS
from prewarm.presence import LISTED_IMAGES

DEFAULT_SECONDS = 600.0
"""How long a hold lasts at most, where the annotation does not say."""
LONGEST_SECONDS = 3600.0
EVENT = "PrewarmGateOpened"
_RESOURCES: dict[str, Resource] = {"Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS}


class GateReason(StrEnum):
    """Why a held rollout was let go."""

    WARM = "Warm"
    """The image is on every node that was planned for."""
    NOTHING_TO_PULL = "NothingToPull"
    """The images were on the nodes already, as in a rollback, or nothing can be pulled ahead."""
    UNPREDICTABLE = "Unpredictable"
    """Where the pods land cannot be known: waiting would not make them warm."""
    FAILED = "Failed"
    """Pulls failed: the rollout is not to wait for what cannot be had."""
    TIMEOUT = "Timeout"
    """It was held as long as the annotation or the policy allows."""
    NOT_COVERED = "NotCovered"
    """Nobody prewarms the workload (any more)."""
    DAMAGED = "Damaged"
    """The marker of the hold cannot be read, or is another object's."""
    RESUMED = "Resumed"
    """A person let it go; only the marker was left."""


_BY_WARMTH = frozenset({GateReason.WARM, GateReason.NOTHING_TO_PULL})


class Gate(Struct, frozen=True):
    """A rollout that the admission policy holds."""

    workload: Workload
    hold: Hold

    @property
    def deadline(self) -> float:
        """When it opens at the latest; Unix seconds."""
        return (self.hold.since or 0.0) + self.longest

    def is_over(self, now: float) -> bool:
        """Whether it was held long enough; so is what was held at a time to come: the clock was set back."""
        return now >= believed(self.hold.since or 0.0, now) + self.longest

    @property
    def longest(self) -> float:
        """Seconds for which it is held at most."""
        if self.hold.seconds is None:
            return longest_hold(self.workload)
        return min(self.hold.seconds, LONGEST_SECONDS)


class Opened(Struct, frozen=True):
    """A gate that is to be opened, and why."""

    gate: Gate
    reason: GateReason
    words: str

    @property
    def patch(self) -> OpenGate:
        """The patch, with an Event for the workload's owner."""
        key, resource = self.gate.workload.key, _RESOURCES[self.gate.workload.key.kind]
        return OpenGate(
            resource,
            key.namespace,
            key.name,
            resource_version=self.gate.workload.resource_version,
            marker=self.gate.hold.marker,
            partition=self.gate.hold.partition if key.kind == "StatefulSet" else None,
            held=self.gate.hold.in_force,
            reason=self.reason.value,
            told=RecordEvent(
                resource,
                key.namespace,
                key.name,
                self.gate.workload.uid,
                EVENT,
                f"{self.reason.value}: {self.words}",
                warning=self.reason in {GateReason.FAILED, GateReason.TIMEOUT, GateReason.DAMAGED},
            ),
        )


class Gates(Struct, frozen=True):
    """What becomes of all gates now."""

    opened: tuple[Opened, ...]
    held: int
    """Gates that stay shut for now."""
    wake_at: float | None
    """When the first of them opens at the latest; Unix seconds."""


def gates(snapshot: ClusterSnapshot) -> Iterator[Gate]:
    """Every workload that carries the marker of a hold."""
    for key in sorted(snapshot.workloads):
        workload = snapshot.workloads[key]
        found = hold(workload) if workload.deleted_at is None else None
        if found is not None:
            yield Gate(workload, found)


def longest_hold(workload: Workload) -> float:
    """Seconds for which a change may be held, from the annotation; DEFAULT_SECONDS for "true" and what is no time."""
    value = workload.annotations.get(ANNOTATION_GATE, "")
    try:
        seconds = durationpy.from_str(value[:32]).total_seconds()
    except (durationpy.DurationError, ValueError, OverflowError):
        return DEFAULT_SECONDS
    return min(max(seconds, 0.0), LONGEST_SECONDS) if value[:1].isdigit() else DEFAULT_SECONDS


def decide_gates(snapshot: ClusterSnapshot, plan: Plan | None, unready: Collection[WorkloadKey] = ()) -> Gates:
    """Open what may go.

    Level-triggered: a hold is judged by the ImageCache of its rollout; where there is none, by the plan that has just
    been made, which says that nothing is left to pull.

    Args:
        snapshot: the cluster as it was planned on.
        plan: the plan made on it; None if none was.
        unready: workloads whose pods would not be steered to all of their warm nodes yet: their gates wait for that.
    """
    entries = {
        entry.demand.workload: entry
        for entry in (plan.demands if plan is not None else ())
        if entry.demand.trigger is Trigger.ROLLOUT
    }
    opened: list[Opened] = []
    deadlines: list[float] = []
    for gate in gates(snapshot):
        planned = plan is not None and (plan.only is None or gate.workload.key in plan.only)
        verdict = _verdict(gate, snapshot, entries.get(gate.workload.key), planned=planned)
        if verdict is None or (verdict[0] in _BY_WARMTH and gate.workload.key in unready):
            deadlines.append(gate.deadline)
        elif verdict[0] is GateReason.WARM and snapshot.taken_at < (listed_at := _listed_at(gate.workload, snapshot)):
            deadlines.append(min(gate.deadline, listed_at))
        else:
            opened.append(Opened(gate, *verdict))
    return Gates(tuple(opened), len(deadlines), min(deadlines, default=None))


def _verdict(
    gate: Gate, snapshot: ClusterSnapshot, entry: DemandPlan | None, *, planned: bool
) -> tuple[GateReason, str] | None:
    """Why a gate opens; None while it stays shut."""
    if not gate.hold.in_force:
        return GateReason.RESUMED, "the rollout was resumed by hand"
    if gate.hold.since is None:
        return GateReason.DAMAGED, f"the annotation {ANNOTATION_GATE_HELD} cannot be read"
    if not gate.hold.is_of(gate.workload):
        return GateReason.DAMAGED, f"the annotation {ANNOTATION_GATE_HELD} was copied from another object"
    if gate.is_over(snapshot.taken_at):
        return GateReason.TIMEOUT, f"held for {gate.longest:.0f} s, the longest that is allowed"
    policy = covering_policy(snapshot, gate.workload)
    if policy is None or policy.mode is not PolicyMode.ACTIVE or not policy.rollout:
        return GateReason.NOT_COVERED, "no active policy prewarms its rollouts"
    found = _cache_of(gate.workload, snapshot)
    if found is not None:
        return _of_cache(found[0])
    return _of_plan(entry) if planned else None


def _cache_of(workload: Workload, snapshot: ClusterSnapshot) -> tuple[ImageCache, PlanSummary] | None:
    """The planned ImageCache of the rollout that is held, and why it was written."""
    planned = planned_for(snapshot.image_caches.values(), workload.key, workload.template_hash)
    return next((found for found in planned if found[1].trigger == Trigger.ROLLOUT), None)


def _listed_at(workload: Workload, snapshot: ClusterSnapshot) -> float:
    """Until when a gate waits for warm nodes that are to draw the pods: they do once they list the images.

    A node whose list is full may leave the image out: nobody waits for it. Nor for one that takes longer than kubelets
    do. 0 if there is nothing to wait for; else Unix seconds.
    """
    found = _cache_of(workload, snapshot)
    if found is None or not found[1].drawn:
        return 0.0
    ready = next((condition for condition in found[0].status.conditions if condition.type == "Ready"), None)
    if ready is None or all(_lists(node, images) for node, images in _drawing(found[0], snapshot)):
        return 0.0
    return ready.since + LISTED_SECONDS


def _drawing(cache: ImageCache, snapshot: ClusterSnapshot) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """The nodes of a cache, and what each is to have."""
    for wanted in cache.lists:
        for name in wanted.node_names or ():
            if name in snapshot.nodes:
                yield snapshot.nodes[name], wanted.images


def _lists(node: Node, images: tuple[str, ...]) -> bool:
    """Whether a node's status lists images, as far as it ever does: it names the 50 largest."""
    return len(node.images) >= LISTED_IMAGES or all(lists(node, image) for image in images if is_found(image))


def _of_cache(cache: ImageCache) -> tuple[GateReason, str] | None:
    status = cache.status
    if status.observed_generation < cache.generation:
        return None
    conditions = {condition.type: condition for condition in status.conditions}
    ready, progressing, degraded = (conditions.get(kind) for kind in ("Ready", "Progressing", "Degraded"))
    if ready is not None and ready.status:
        return GateReason.WARM, ready.message
    if progressing is not None and not progressing.status:
        said = ready.message if ready is not None else progressing.message
        failed = degraded is not None and degraded.status
        return (GateReason.FAILED if failed else GateReason.NOTHING_TO_PULL), said
    return None


def _of_plan(entry: DemandPlan | None) -> tuple[GateReason, str] | None:
    if entry is None:
        return GateReason.NOTHING_TO_PULL, "no pods are to come"
    if entry.drawn or any(node.missing for node in entry.nodes):
        return None
    if any(skip.reason is SkipReason.UNPREDICTABLE for skip in entry.skips):
        return GateReason.UNPREDICTABLE, "where the pods land cannot be predicted"
    if entry.steering is not None and entry.steering.waits:
        told = f"the nodes of {entry.steering.waits} pods are known once old pods leave"
        return GateReason.NOTHING_TO_PULL, f"nothing is missing on {len(entry.nodes)} nodes, {told}"
    return GateReason.NOTHING_TO_PULL, f"nothing is missing on {len(entry.nodes)} nodes"
