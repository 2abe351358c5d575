"""Where will it land? Replays of the scheduler's filters and scores over all nodes at once."""

from collections.abc import Mapping

from prewarm.model.plans import Candidates, Demand
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.candidates import summarize
from prewarm.placement.cluster_arrays import ClusterArrays, cluster_arrays
from prewarm.placement.image_locality import ExpectedImage, normalized_name
from prewarm.placement.reach import reachable
from prewarm.placement.replay import Replays

__all__ = ["ClusterArrays", "ExpectedImage", "cluster_arrays", "place", "reachable"]


def place(
    demand: Demand,
    snapshot: ClusterSnapshot,
    *,
    replays: int = 32,
    seed: int = 0,
    images: Mapping[str, ExpectedImage] | None = None,
    cluster: ClusterArrays | None = None,
) -> Candidates:
    """Where a demand's pods will land, as the default scheduler of Kubernetes 1.36 would have it.

    Not seen: volumes, preemption, other scheduler profiles, and nodes that an autoscaler would add. What a snapshot
    does not show (node order, start index, ties) is drawn anew for each replay, from `seed` alone.

    Args:
        demand: pods to come.
        snapshot: the cluster now.
        replays: possible courses of events; cost grows with it, the resolution of probabilities too.
        seed: fixes what is drawn; equal arguments give equal results.
        images: images, as pod specs write them, that will be on more nodes than report them now.
        cluster: the snapshot's nodes, where several demands on one snapshot share them, or those that are
            `reachable`; without it, they are found out.
    """
    arrays = cluster if cluster is not None else reachable(demand, snapshot, cluster_arrays(snapshot))
    if not arrays.count or not demand.pods:
        return Candidates(nodes=(), unplaced=demand.pods)
    expected = {normalized_name(image): value for image, value in (images or {}).items()}
    outcome = Replays(demand, snapshot, arrays, rows=max(1, replays), seed=seed, expected=expected).run()
    return summarize(outcome, arrays)
