"""A Flagger Canary's primary gets its target's images once checks have passed, and not before."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import coverage, demands, what_if
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, SkipReason, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.progressive import Flagger, FlaggerPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import ENABLED, cluster, deployment, node, replica_set, template

PRIMARY = WorkloadKey("Deployment", "shop", "web-primary")
TARGET = WorkloadKey("Deployment", "shop", "web")
CANARY = WorkloadKey("Canary", "shop", "web")
V1, V2 = template("registry.test/web:v1"), template("registry.test/web:v2")
NOW = 10_000.0


def pods_of(found: Workload, count: int, first: int, **fields: Any) -> list[Pod]:
    owner = OwnerReference("ReplicaSet", found.key.name, found.uid)
    return [
        replace(
            Pod(
                "shop",
                f"{found.key.name}-{number}",
                f"uid-{found.key.name}-{number}",
                node_name=f"n{first + number}",
                owner=owner,
                shape=found.template.shape,
                phase=PodPhase.RUNNING,
                created_at=NOW - 500,
                ready_at=NOW - 490,
            ),
            **fields,
        )
        for number in range(count)
    ]


def snapshot(state: FlaggerPhase, *, ready: bool = True, **fields: Any) -> ClusterSnapshot:
    values: dict[str, Any] = {"interval_seconds": 60.0, "checks_left": 5, "checks_passed": True, **fields}
    canary = Workload(
        CANARY,
        "uid-canary",
        annotations=ENABLED,
        replicas=0,
        api_version="flagger.app/v1beta1",
        flagger=Flagger("Deployment", "web", phase=state, **values),
    )
    owner = OwnerReference("Canary", "web", "uid-canary", "flagger.app/v1beta1")
    primary = deployment(V1, replicas=6, key=PRIMARY, annotations={}, owner=owner)
    target = deployment(V2, replicas=1, key=TARGET, annotations={})
    sets = [replica_set(primary, V1, 6), replica_set(target, V2, 1)]
    pods = [*pods_of(sets[0], 6, 0), *pods_of(sets[1], 1, 6, **({} if ready else {"ready_at": None}))]
    return cluster([node(f"n{number}") for number in range(10)], pods, [canary, primary, target], sets, now=NOW)


def wanted(found: ClusterSnapshot) -> Demand | None:
    asked = demands(found, PRIMARY, Policy(), History())
    assert len(asked) <= 1
    return asked[0] if asked else None


def test_the_primarys_rollout_is_announced_for_when_the_checks_are_over() -> None:
    demand = wanted(snapshot(FlaggerPhase.PROGRESSING))
    assert demand is not None
    assert demand.trigger is Trigger.ANNOUNCED
    assert demand.images == ("registry.test/web:v2",)
    assert demand.pods == 6
    assert demand.batches[0].needed_at == NOW + 300
    assert demand.withheld is None


@pytest.mark.parametrize("fields", [{"checks_passed": False}, {"checks_failed": 1}, {"ready": False}])
def test_it_waits_for_proof(fields: dict[str, Any]) -> None:
    demand = wanted(snapshot(FlaggerPhase.PROGRESSING, **fields))
    assert demand is not None
    assert demand.withheld is SkipReason.CANARY_UNPROVEN


@pytest.mark.parametrize("state", [FlaggerPhase.FAILED, FlaggerPhase.SUCCEEDED, FlaggerPhase.INITIALIZED])
def test_nothing_is_needed_when_nothing_is_on_trial(state: FlaggerPhase) -> None:
    assert wanted(snapshot(state)) is None


def test_a_promotion_that_waits_for_a_person_comes_nobody_knows_when() -> None:
    demand = wanted(snapshot(FlaggerPhase.WAITING_PROMOTION))
    assert demand is not None
    assert demand.batches[0].needed_at > NOW + 3600


def test_the_canarys_annotations_count_for_its_primary() -> None:
    found = snapshot(FlaggerPhase.PROGRESSING)
    assert coverage(found, found.workloads[PRIMARY]).policy is not None
    assert coverage(found, found.workloads[TARGET]).policy is None


def test_a_question_about_a_canary_is_sent_to_its_primary() -> None:
    with pytest.raises(ValueError, match="-primary"):
        what_if(snapshot(FlaggerPhase.PROGRESSING), CANARY)
