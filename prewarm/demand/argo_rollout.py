"""What will an Argo Rollout need? Canary and blue-green, once the new revision has proved healthy."""

from msgspec.structs import replace

from prewarm.demand.canary_steps import blue_green_batches, canary_batches, first_canary
from prewarm.demand.progress import Times, bounds
from prewarm.demand.revisions import rollout_hash, rollout_revision
from prewarm.demand.rollout import Stage, available_at, counts_of, last_pods_start, leaving_pods, stage_of
from prewarm.demand.shapes import fails, far_ahead, images, revision_labels, start_seconds, stop_seconds
from prewarm.demand.stopping import expected_end
from prewarm.history import History
from prewarm.model.plans import Batch, Demand, SkipReason, Trigger
from prewarm.model.pods import Pod
from prewarm.model.progressive import Rollout
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload


def rollout_stage(snapshot: ClusterSnapshot, workload: Workload) -> Stage:
    """The ReplicaSets and pods of an Argo Rollout whose template is known."""
    return stage_of(snapshot, workload, rollout_revision(snapshot, workload))


def argo_rollout_demand(
    snapshot: ClusterSnapshot, at: Stage, excluded: frozenset[str], history: History
) -> Demand | None:
    """The pods that a Rollout has still to create; None if it stands.

    Steps, pauses and promotions follow its status, so a promotion or a change of steps is seen with the next snapshot.
    An aborted rollout needs nothing but the stable pods that went, and what was planned for it is withdrawn.

    Raises:
        ValueError: if maxSurge or maxUnavailable cannot be read.
    """
    workload, rollout = at.workload, at.workload.rollout
    needed = images(workload.template.shape, excluded)
    stable = _stable(at, rollout)
    if rollout is None or not needed or workload.replicas == 0 or stable is None:
        return None
    asked = workload.key in snapshot.asked
    if stable is at.current:
        return _demand(snapshot, at, needed, (), ()) if not asked and last_pods_start(snapshot, at) else None
    if rollout.aborted and not asked:
        return _back_to_stable(snapshot, at, stable, excluded)
    now = far_ahead(snapshot.taken_at) if asked or workload.paused else snapshot.taken_at
    warm = start_seconds(snapshot, history, workload)
    cold = warm if asked else warm + sum(history.expected_pull_seconds(image) for image in needed)
    counts = counts_of(at, snapshot.taken_at)
    stopping = stop_seconds(snapshot, history, workload)
    ends = tuple(max(now, expected_end(pod, snapshot.taken_at, stopping)) for pod in at.terminating)
    available = available_at(at, snapshot.taken_at, warm, cold, ends)
    times = Times(available, ends, warm, cold, stopping)
    if rollout.blue_green:
        batches = blue_green_batches(rollout, counts, now, times)
        leaving: tuple[Pod, ...] = ()
    else:
        # A question, or a template that the controller has not seen, starts at the first step.
        fresh = replace(rollout, step=0, paused_at=None, promoted=False)
        begun = rollout if at.current is not None and not asked else fresh
        batches = canary_batches(workload, begun, counts, now, times)
        leaving = leaving_pods(at, now, sum(batch.leaving for batch in batches[:1]))
    if not batches and not last_pods_start(snapshot, at):
        return None
    found = _demand(snapshot, at, needed, batches, leaving)
    return found if asked or proven(at, rollout) else replace(found, withheld=SkipReason.CANARY_UNPROVEN)


def proven(at: Stage, rollout: Rollout) -> bool:
    """Whether the first canary pods are all ready, none fails, and no analysis speaks against them."""
    workload = at.workload
    ready = sum(pod.ready_at is not None for pod in at.new_pods)
    first = first_canary(rollout, workload.replicas, bounds(workload).surge)
    return not rollout.doubted and 0 < min(first, workload.replicas) <= ready and not any(map(fails, at.new_pods))


def _stable(at: Stage, rollout: Rollout | None) -> Workload | None:
    """The ReplicaSet that served before; None before the first rollout has ended."""
    sets = (*at.old, *((at.current,) if at.current is not None else ()))
    if rollout is None or not rollout.stable_hash:
        return None
    return next((found for found in sets if rollout_hash(found) == rollout.stable_hash), None)


def _demand(
    snapshot: ClusterSnapshot, at: Stage, needed: tuple[str, ...], batches: tuple[Batch, ...], leaving: tuple[Pod, ...]
) -> Demand:
    workload = at.workload
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.WHAT_IF if workload.key in snapshot.asked else Trigger.ROLLOUT,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=batches,
        leaving=tuple(pod.key for pod in leaving),
        leaving_first=batches[0].leaving if batches else 0,
        revision_labels=revision_labels(at.current),
    )


def _back_to_stable(snapshot: ClusterSnapshot, at: Stage, stable: Workload, excluded: frozenset[str]) -> Demand | None:
    """Stable pods that were taken away for the canary come back at once."""
    workload = at.workload
    missing = workload.replicas - len(at.old_pods.get(stable.uid, ()))
    needed = images(stable.template.shape, excluded)
    if missing <= 0 or not needed:
        return None
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.ROLLOUT,
        revision=stable.template_hash,
        images=needed,
        template=stable.template,
        batches=(Batch(snapshot.taken_at, missing, len(at.new_pods)),),
        leaving=tuple(pod.key for pod in at.new_pods),
        revision_labels=revision_labels(stable),
    )
