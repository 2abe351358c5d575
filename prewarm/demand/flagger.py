"""What will follow from a Flagger Canary? Its primary gets the target's images once the analysis has passed."""

from msgspec.structs import replace

from prewarm.demand.rollout import rollout_demand, stage
from prewarm.demand.shapes import far_ahead
from prewarm.demand.what_if import with_images
from prewarm.history import History
from prewarm.model.plans import Demand, SkipReason, Trigger
from prewarm.model.progressive import Flagger, FlaggerPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey

_ON_TRIAL = frozenset({FlaggerPhase.PROGRESSING, FlaggerPhase.WAITING_PROMOTION, FlaggerPhase.PROMOTING})


def canary_of(snapshot: ClusterSnapshot, workload: Workload) -> Workload | None:
    """The Canary that controls a primary Deployment; None for any other workload."""
    owner = workload.owner
    if owner is None or owner.kind != "Canary":
        return None
    found = snapshot.workloads.get(WorkloadKey("Canary", workload.key.namespace, owner.name))
    return found if found is not None and found.uid == owner.uid and found.deleted_at is None else None


def flagger_demand(
    snapshot: ClusterSnapshot, primary: Workload, excluded: frozenset[str], history: History
) -> Demand | None:
    """The rollout that a primary has before it while its target is on trial; None if nothing is.

    Raises:
        ValueError: if maxSurge or maxUnavailable of the primary cannot be read.
    """
    canary = canary_of(snapshot, primary)
    state = None if canary is None else canary.flagger
    if state is None or state.phase not in _ON_TRIAL or state.target_kind != "Deployment":
        return None
    target = snapshot.workloads.get(WorkloadKey("Deployment", primary.key.namespace, state.target_name))
    if target is None:
        return None
    own = {container.name for container in primary.template.shape.containers}
    images = {found.name: found.image for found in target.template.shape.containers if found.name in own}
    try:
        changed = with_images(primary, images)
    except ValueError:
        return None
    if changed is primary:
        return None
    asked = snapshot.asked | {primary.key}
    later = replace(snapshot, workloads={**snapshot.workloads, primary.key: changed}, asked=asked)
    found = rollout_demand(later, stage(later, changed), excluded, history)
    if found is None:
        return None
    sooner = _promoted_at(state, snapshot.taken_at) - far_ahead(snapshot.taken_at)
    return replace(
        found,
        trigger=Trigger.ANNOUNCED,
        batches=tuple(replace(batch, needed_at=batch.needed_at + sooner) for batch in found.batches),
        withheld=None if _proven(snapshot, state, target) else SkipReason.CANARY_UNPROVEN,
    )


def _promoted_at(state: Flagger, now: float) -> float:
    """When the primary is changed, if no check fails; a promotion that waits for a person comes nobody knows when."""
    if state.phase is FlaggerPhase.WAITING_PROMOTION:
        return far_ahead(now)
    left = 0 if state.phase is FlaggerPhase.PROMOTING else state.checks_left
    return now + max(1, left) * state.interval_seconds


def _proven(snapshot: ClusterSnapshot, state: Flagger, target: Workload) -> bool:
    """Whether a check has passed, none has failed since the change, and all of the target's new pods are ready."""
    if state.checks_failed or not (state.checks_passed or state.phase is not FlaggerPhase.PROGRESSING):
        return False
    pods = stage(snapshot, target).new_pods
    return bool(pods) and all(pod.ready_at is not None for pod in pods)
