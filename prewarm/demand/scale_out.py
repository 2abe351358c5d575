"""What will a scale-out need? Headroom over the current replicas, as far as the autoscaler can go at once."""

from prewarm.demand.rollout import Stage
from prewarm.demand.shapes import MAX_AHEAD, far_ahead, images, revision_labels
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Autoscaler

PERIOD = 15.0
"""Seconds between two decisions of the HorizontalPodAutoscaler controller (--horizontal-pod-autoscaler-sync-period)."""
TOLERANCE = 0.1
"""Deviation of a metric from its target that the controller ignores (--horizontal-pod-autoscaler-tolerance)."""


def scale_out_demand(
    snapshot: ClusterSnapshot, at: Stage, policy: Policy, headroom_percent: int | None, excluded: frozenset[str]
) -> Demand | None:
    """The next pods of a workload that something scales; None if nothing does or nothing may be added.

    Replicas that were asked for already and do not exist yet come first: they are created now.

    Args:
        snapshot: the cluster.
        at: the workload's pods; its rollout is over.
        policy: whose headroom applies where the workload names none.
        headroom_percent: from the workload's annotation, which also stands for an autoscaler that we cannot see.
        excluded: names of containers whose images are left out.
    """
    workload = at.workload
    now = snapshot.taken_at
    autoscaler = snapshot.autoscalers.get(workload.key)
    percent = policy.headroom_percent if headroom_percent is None else headroom_percent
    scaled = autoscaler is not None or headroom_percent is not None
    ahead = min(next_pods(workload.replicas, percent, autoscaler), MAX_AHEAD) if scaled else 0
    needed = images(workload.template.shape, excluded)
    asked = workload.key in snapshot.asked and at.missing > 0
    if not needed or (ahead <= 0 and not asked):
        return None
    soon = autoscaler is not None and autoscaler.utilization is not None and autoscaler.utilization > 1 + TOLERANCE
    batches = (
        Batch(far_ahead(now) if asked else now, at.missing),
        Batch(now + PERIOD if soon else far_ahead(now), 0 if asked else ahead),
    )
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=Trigger.WHAT_IF if asked else Trigger.SCALE_OUT,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=tuple(batch for batch in batches if batch.pods > 0),
        revision_labels=revision_labels(at.current),
    )


def next_pods(replicas: int, headroom_percent: int, autoscaler: Autoscaler | None) -> int:
    """Headroom in pods, rounded up; at most to maxReplicas and what the default scaleUp behaviour adds in one period.

    That is the larger of 100 % and 4 pods (defaults of autoscaling/v2, GenerateHPAScaleUpRules).
    """
    headroom = -(-replicas * headroom_percent // 100)
    if autoscaler is None:
        return headroom
    return min(headroom, autoscaler.max_replicas - replicas, max(replicas, 4))
