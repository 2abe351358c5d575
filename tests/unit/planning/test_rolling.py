"""Rollouts of other workloads are counted on where their pods come first."""

from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.plans import Batch
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.planning.rolling import ALL_RIVAL_PODS, Rolling
from tests.unit.placement.clusters import cluster, demand, node, requests


def rolling_out(name: str, replicas: int = 4) -> Workload:
    """A Deployment whose controller has not seen its new template yet."""
    return Workload(
        WorkloadKey("Deployment", "default", name),
        uid=f"uid-{name}",
        generation=2,
        observed_generation=1,
        replicas=replicas,
        template=replace(demand().template, shape=requests(500)),
        template_hash="new",
    )


def snapshot(*workloads: Workload) -> ClusterSnapshot:
    return replace(cluster([node("a")]), workloads={one.key: one for one in workloads})


OURS = demand(batches=(Batch(1000.0, 4),))


def test_a_rollout_that_is_under_way_comes_beside() -> None:
    found = Rolling(snapshot(rolling_out("other")), History()).beside(OURS)
    assert [(one.workload.name, one.pods) for one in found] == [("other", 4)]


def test_what_is_rolled_out_paused_or_our_own_does_not() -> None:
    done = replace(rolling_out("done"), observed_generation=2, updated_replicas=4, status_replicas=4)
    paused = replace(rolling_out("paused"), paused=True)
    ours = replace(rolling_out("web"), key=OURS.workload)
    assert Rolling(snapshot(done, paused, ours), History()).beside(OURS) == ()


def test_a_strategy_that_cannot_be_read_is_left_out() -> None:
    odd = replace(rolling_out("odd"), max_surge="many")
    found = Rolling(snapshot(odd, rolling_out("other")), History()).beside(OURS)
    assert [one.workload.name for one in found] == ["other"]


def test_many_rollouts_at_once_cost_no_more_together() -> None:
    many = [rolling_out(f"other-{index:03d}", replicas=50) for index in range(100)]
    found = Rolling(snapshot(*many), History()).beside(OURS)
    assert 0 < sum(one.pods for one in found) <= ALL_RIVAL_PODS / len(many)
