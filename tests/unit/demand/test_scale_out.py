import re
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands, what_if
from prewarm.demand.scale_out import next_pods
from prewarm.demand.shapes import MAX_AHEAD
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Autoscaler, WorkloadKey
from tests.support.clusters import WEB, cluster, deployment, replica_set, template

V1 = template("registry.test/web:v1")


def scaler(maximum: int = 100, utilization: float | None = None) -> Autoscaler:
    return Autoscaler("shop", "web", "uid-hpa", WEB, max_replicas=maximum, utilization=utilization)


def steady(replicas: int, existing: int | None = None, annotations: Mapping[str, str] = {}) -> ClusterSnapshot:
    found = deployment(V1, replicas=replicas, annotations={"prewarm.dev/enabled": "true", **annotations})
    current = replica_set(found, V1, replicas)
    owner = OwnerReference("ReplicaSet", current.key.name, current.uid)
    pods = [
        Pod("shop", f"p{i}", f"uid-p{i}", "n", owner=owner, phase=PodPhase.RUNNING, ready_at=1.0)
        for i in range(replicas if existing is None else existing)
    ]
    return cluster(pods=pods, workloads=[found], replica_sets=[current])


def wanted(snapshot: ClusterSnapshot, policy: Policy | None = None, *scalers: Autoscaler) -> Demand | None:
    snapshot = replace(snapshot, autoscalers={found.target: found for found in scalers})
    found = demands(snapshot, WEB, policy or Policy(), History())
    return found[0] if found else None


@pytest.mark.parametrize(
    ("replicas", "percent", "maximum", "expected"),
    [
        (10, 20, 100, 2),
        (11, 20, 100, 3),
        (1, 20, 100, 1),
        (0, 20, 100, 0),
        (10, 20, 11, 1),
        (10, 20, 10, 0),
        (10, 20, 5, -5),
        (2, 1000, 100, 4),
        (50, 1000, 1000, 50),
    ],
)
def test_headroom_is_bounded_by_what_the_autoscaler_may_add(
    replicas: int, percent: int, maximum: int, expected: int
) -> None:
    assert next_pods(replicas, percent, scaler(maximum)) == expected


def test_an_autoscaled_deployment_needs_headroom() -> None:
    demand = wanted(steady(10), None, scaler())
    assert demand is not None
    assert (demand.trigger, demand.pods, demand.leaving) == (Trigger.SCALE_OUT, 2, ())


def test_a_deployment_that_nothing_scales_needs_none() -> None:
    assert wanted(steady(10)) is None


def test_the_headroom_annotation_asks_for_it_without_an_autoscaler() -> None:
    demand = wanted(steady(10, annotations={"prewarm.dev/headroom": "50%"}))
    assert demand is not None
    assert demand.pods == 5


def test_the_annotation_overrides_the_policy() -> None:
    assert wanted(steady(10, annotations={"prewarm.dev/headroom": "0"}), None, scaler()) is None


def test_a_policy_without_scale_out_plans_none() -> None:
    assert wanted(steady(10), Policy(scale_out=False), scaler()) is None


def test_a_metric_above_its_target_makes_it_urgent() -> None:
    calm, hot = wanted(steady(10), None, scaler(utilization=1.05)), wanted(steady(10), None, scaler(utilization=1.2))
    assert calm is not None
    assert hot is not None
    assert hot.batches[0].needed_at == 1015.0
    assert calm.batches[0].needed_at > 2000.0


def test_replicas_that_are_being_created_come_before_the_headroom() -> None:
    demand = wanted(steady(10, existing=7), None, scaler())
    assert demand is not None
    assert demand.trigger is Trigger.SCALE_OUT
    assert (demand.batches[0].needed_at, demand.batches[0].pods) == (1000.0, 3)
    assert demand.pods == 5


def test_while_a_rollout_runs_there_is_no_scale_out() -> None:
    snapshot = steady(10)
    changed = deployment(template("registry.test/web:v2"), replicas=10)
    demand = wanted(replace(snapshot, workloads={WEB: changed}), None, scaler())
    assert demand is not None
    assert (demand.trigger, demand.revision) == (Trigger.ROLLOUT, "v2")


def test_what_if_more_replicas() -> None:
    snapshot = what_if(steady(10), WEB, replicas=14)
    demand = wanted(snapshot)
    assert demand is not None
    assert (demand.trigger, demand.pods) == (Trigger.WHAT_IF, 4)
    assert demand.batches[0].needed_at > snapshot.taken_at + 3000


def test_what_if_more_replicas_is_answered_under_a_policy_without_scale_out() -> None:
    policy = Policy(scale_out=False)
    demand = wanted(what_if(steady(10), WEB, replicas=14), policy, scaler())
    assert demand is not None
    assert (demand.trigger, demand.pods) == (Trigger.WHAT_IF, 4)
    assert wanted(steady(10), policy, scaler()) is None


def test_what_if_another_image_of_a_workload_that_is_not_opted_in() -> None:
    before = steady(10)
    bare = replace(before, workloads={WEB: replace(before.workloads[WEB], annotations={})})
    snapshot = what_if(bare, WEB, images={"c0": "registry.test/web:v9"})
    demand = wanted(snapshot)
    assert demand is not None
    assert (demand.trigger, demand.images, demand.pods) == (Trigger.WHAT_IF, ("registry.test/web:v9",), 10)
    assert len(demand.leaving) == 10
    assert bare.workloads[WEB].template == V1


def test_what_if_the_same_image_changes_nothing() -> None:
    assert wanted(what_if(steady(10), WEB, images={"c0": "registry.test/web:v1"})) is None


@pytest.mark.parametrize("paused", [True, False])
def test_replicas_that_no_cluster_holds_are_planned_piece_by_piece(paused: bool) -> None:
    snapshot = steady(10, annotations={"prewarm.dev/headroom": "1000%"})
    endless = replace(snapshot.workloads[WEB], replicas=2**31 - 1, paused=paused)
    scaled = wanted(replace(snapshot, workloads={WEB: endless}))
    assert scaled is not None
    assert [batch.pods for batch in scaled.batches] == [MAX_AHEAD, MAX_AHEAD]
    changed = replace(endless, template=template("registry.test/web:v2"), template_hash="v2")
    rollout = wanted(replace(snapshot, workloads={WEB: changed}))
    assert rollout is not None
    assert MAX_AHEAD <= rollout.pods <= MAX_AHEAD + 10


@pytest.mark.parametrize(
    ("key", "arguments", "told"),
    [
        (WorkloadKey("Deployment", "shop", "none"), {}, "deployment/shop/none is not in the cluster"),
        (WorkloadKey("Pod", "shop", "db"), {}, "pod/shop/db cannot be planned: give one of Deployment, StatefulSet"),
        (WorkloadKey("DaemonSet", "shop", "none"), {}, "daemonset/shop/none is not in the cluster"),
        (WEB, {"replicas": -1}, "replicas -1: give a number"),
        (WEB, {"images": {"nope": "a:b"}}, "has no container 'nope'; it has: c0"),
        (WEB, {"images": {"c0": "Not An Image"}}, "is not an image reference"),
    ],
)
def test_an_impossible_question_is_refused_in_one_line(key: WorkloadKey, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        what_if(steady(1), key, **arguments)
    assert "\n" not in str(refused.value)
