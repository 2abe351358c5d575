"""What is on nodes already and worth keeping there: nothing is pulled for it."""

from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.nodes import pull_identity, pull_obstacle
from prewarm.model.plans import CandidateNode, Candidates, Demand, DemandPlan, PlannedNode, Skip, SkipReason
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.planning.selection import OBSTACLES
from prewarm.presence import Warmth


def plan_kept(demand: Demand, policy: Policy, snapshot: ClusterSnapshot, warmth: Warmth) -> DemandPlan:
    """The nodes of a demand on which all of its images are; where one is missing, none is pulled again.

    The demand's nodes are those of pods that run: once such a pod is gone, delivery keeps its node for as long as the
    images are there.
    """
    shape = demand.template.shape
    identity = pull_identity(demand.workload.namespace, shape.service_account, shape.pull_secrets)
    names = sorted({name for batch in demand.batches for name in batch.nodes if name in snapshot.nodes})
    warm: list[str] = []
    skips: list[Skip] = []
    for name in names:
        obstacle = pull_obstacle(snapshot.nodes[name])
        if obstacle is not None:
            skips.append(Skip(OBSTACLES[obstacle], demand.workload, node=name))
        elif all(warmth.is_warm(name, image, pull_identity=identity) for image in demand.images):
            warm.append(name)
            skips.append(Skip(SkipReason.ALREADY_PRESENT, demand.workload, node=name))
        else:
            skips.append(Skip(SkipReason.PULLED_BY_POD, demand.workload, node=name))
    return DemandPlan(
        demand=demand,
        candidates=Candidates(tuple(CandidateNode(name, 1.0) for name in names)),
        nodes=tuple(PlannedNode(name, 1.0, ()) for name in warm),
        skips=tuple(skips),
        shadow=policy.mode is PolicyMode.SHADOW,
        hold_seconds=policy.hold_seconds or None,
    )
