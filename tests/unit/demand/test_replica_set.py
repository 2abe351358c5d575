"""The next pods of a ReplicaSet that no Deployment controls."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from prewarm.demand import demands, pods_of_revision, what_if
from prewarm.demand.shapes import MAX_AHEAD
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Autoscaler, WorkloadKey
from tests.support.clusters import cluster, deployment, template

KEY = WorkloadKey("ReplicaSet", "shop", "web")
V1 = template("registry.test/web:v1")
V2 = template("registry.test/web:v2")
SCALER = Autoscaler("shop", "web", "uid-hpa", KEY, max_replicas=100)


def steady(replicas: int, existing: int, annotations: Mapping[str, str] = {}) -> ClusterSnapshot:
    found = deployment(
        V1, replicas=replicas, key=KEY, annotations={"prewarm.dev/enabled": "true", **annotations}, max_surge=0
    )
    pods = [
        Pod(
            "shop",
            f"p{i}",
            f"uid-p{i}",
            "n",
            owner=OwnerReference("ReplicaSet", KEY.name, found.uid),
            shape=V1.shape,
            phase=PodPhase.RUNNING,
            ready_at=1.0,
        )
        for i in range(existing)
    ]
    return cluster(pods=pods, workloads=[found], replica_sets=[found])


def wanted(snapshot: ClusterSnapshot, *scalers: Autoscaler) -> Demand | None:
    found = demands(replace(snapshot, autoscalers={one.target: one for one in scalers}), KEY, Policy(), History())
    assert len(found) <= 1
    return found[0] if found else None


def test_an_autoscaled_one_needs_headroom() -> None:
    demand = wanted(steady(10, 10), SCALER)
    assert demand is not None
    assert (demand.trigger, demand.pods, demand.images) == (Trigger.SCALE_OUT, 2, ("registry.test/web:v1",))


def test_one_that_nothing_scales_needs_none() -> None:
    assert wanted(steady(10, 10)) is None


def test_missing_pods_come_before_the_headroom_of_the_annotation() -> None:
    demand = wanted(steady(10, 7, {"prewarm.dev/headroom": "50%"}))
    assert demand is not None
    assert [batch.pods for batch in demand.batches] == [3, 5]
    assert demand.batches[0].needed_at < demand.batches[1].needed_at


def test_a_changed_template_replaces_nothing_and_is_what_the_next_pods_get() -> None:
    before = steady(10, 10)
    changed = replace(before.workloads[KEY], template=V2, template_hash="v2")
    after = replace(before, workloads={KEY: changed})
    demand = wanted(after, SCALER)
    assert demand is not None
    assert (demand.trigger, demand.images, demand.pods) == (Trigger.SCALE_OUT, ("registry.test/web:v2",), 2)
    assert demand.leaving == ()
    assert not list(pods_of_revision(demand, after))


def test_what_if_more_replicas() -> None:
    demand = wanted(what_if(steady(10, 10), KEY, replicas=14))
    assert demand is not None
    assert (demand.trigger, demand.pods) == (Trigger.WHAT_IF, 4)


@pytest.mark.parametrize("replicas", [0, 2**31 - 1])
def test_the_pods_to_come_are_bounded(replicas: int) -> None:
    demand = wanted(steady(replicas, 0, {"prewarm.dev/headroom": "1000%"}))
    assert (demand.pods if demand is not None else 0) <= 2 * MAX_AHEAD
