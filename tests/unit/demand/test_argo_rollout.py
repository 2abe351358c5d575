"""What Argo Rollouts need at every stage of a canary or blue-green rollout."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.demand.canary_steps import canary_batches, weighted_counts
from prewarm.demand.progress import Counts, Times
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Batch, Demand, SkipReason, Trigger
from prewarm.model.pods import ContainerStatus, OwnerReference, Pod, PodPhase, PodTemplate
from prewarm.model.progressive import CanaryStep, Rollout
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import cluster, deployment, node, replica_set, template

KEY = WorkloadKey("Rollout", "shop", "web")
V1, V2 = template("registry.test/web:v1"), template("registry.test/web:v2")
HISTORY = History(pulls={"registry.test/web:v2": Measured(20.0, 0.0)})
NOW = 10_000.0
STEPS = (CanaryStep(weight=20), CanaryStep(waits=True))
FAR = NOW + 3600


def rollout(wanted: PodTemplate = V2, *, replicas: int = 10, **state: Any) -> Workload:
    values: dict[str, Any] = {"steps": STEPS, "stable_hash": "v1", "current_hash": "v2", **state}
    found = deployment(wanted, replicas=replicas, key=KEY, api_version="argoproj.io/v1alpha1")
    # The API server completes the template of a ReplicaSet, not that of a Rollout: their hashes differ.
    return replace(found, template_hash=f"raw-{found.template_hash}", rollout=Rollout(**values))


def set_of(owner: Workload, wanted: PodTemplate, replicas: int) -> Workload:
    found = replica_set(owner, wanted, replicas)
    labels = {"app": "web", "rollouts-pod-template-hash": found.labels["pod-template-hash"]}
    return replace(found, labels=labels, template=PodTemplate(labels, found.template.shape))


def pods_of(replica_set: Workload, count: int, first: int = 0, **fields: Any) -> list[Pod]:
    return [
        replace(
            Pod(
                "shop",
                f"{replica_set.key.name}-{number}",
                f"uid-{replica_set.key.name}-{number}",
                node_name=f"n{first + number}",
                labels={"app": "web"},
                owner=OwnerReference("ReplicaSet", replica_set.key.name, replica_set.uid, "apps/v1"),
                shape=replica_set.template.shape,
                phase=PodPhase.RUNNING,
                created_at=NOW - 500,
                scheduled_at=NOW - 500,
                ready_at=NOW - 490,
            ),
            **fields,
        )
        for number in range(count)
    ]


def snapshot(found: Workload, stable: int = 10, new: int = 0, **fields: Any) -> ClusterSnapshot:
    sets = [set_of(found, V1, stable)]
    pods = pods_of(sets[0], stable)
    if new:
        sets.append(set_of(found, V2, new))
        pods += pods_of(sets[1], new, stable, **fields)
    return cluster([node(f"n{number}") for number in range(25)], pods, [found], sets, now=NOW)


def wanted(found: ClusterSnapshot) -> Demand | None:
    asked = demands(found, KEY, Policy(), HISTORY)
    assert len(asked) <= 1
    return asked[0] if asked else None


def test_a_rollout_that_stands_needs_nothing() -> None:
    assert wanted(snapshot(rollout(V1, current_hash="v1"))) is None


def test_a_changed_template_needs_the_canary_now_and_the_others_nobody_knows_when() -> None:
    demand = wanted(snapshot(rollout(current_hash="v1")))
    assert demand is not None
    assert demand.trigger is Trigger.ROLLOUT
    assert demand.pods == 10
    assert (demand.batches[0].needed_at, demand.batches[0].pods) == (NOW, 2)
    assert all(batch.needed_at > FAR for batch in demand.batches[1:])
    assert demand.withheld is SkipReason.CANARY_UNPROVEN


def test_a_canary_that_is_ready_lets_its_image_spread() -> None:
    demand = wanted(snapshot(rollout(step=1), stable=8, new=2))
    assert demand is not None
    assert demand.pods == 8
    assert demand.withheld is None
    assert demand.revision_labels == (("rollouts-pod-template-hash", "v2"),)


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ({}, {"ready_at": None}),
        ({"doubted": True}, {}),
        ({}, {"ready_at": None, "containers": (ContainerStatus("c0", reason="CrashLoopBackOff"),)}),
    ],
)
def test_a_canary_in_doubt_does_not(state: dict[str, Any], fields: dict[str, Any]) -> None:
    demand = wanted(snapshot(rollout(step=1, **state), stable=8, new=2, **fields))
    assert demand is not None
    assert demand.withheld is SkipReason.CANARY_UNPROVEN


def test_pods_that_start_later_do_not_take_the_proof_back() -> None:
    found = snapshot(rollout(step=2), stable=6, new=4)
    last = max(key for key, pod in found.pods.items() if pod.shape == V2.shape)
    starting = replace(found.pods[last], ready_at=None, created_at=NOW)
    uid = starting.owner.uid if starting.owner is not None else ""
    owned = {**found.pods_by_owner, uid: {**found.pods_by_owner[uid], last: starting}}
    demand = wanted(replace(found, pods={**found.pods, last: starting}, pods_by_owner=owned))
    assert demand is not None
    assert demand.withheld is None


def test_an_aborted_rollout_needs_only_the_stable_pods_that_went() -> None:
    demand = wanted(snapshot(rollout(step=1, aborted=True), stable=7, new=2))
    assert demand is not None
    assert demand.images == ("registry.test/web:v1",)
    assert demand.pods == 3
    assert wanted(snapshot(rollout(step=1, aborted=True), stable=10)) is None


def test_a_full_promotion_passes_over_steps_and_pauses() -> None:
    demand = wanted(snapshot(rollout(step=1, promoted=True), stable=8, new=2))
    assert demand is not None
    assert demand.pods == 8
    assert all(batch.needed_at < FAR for batch in demand.batches)


def test_timed_pauses_say_when_the_next_pods_come() -> None:
    steps = (CanaryStep(weight=20), CanaryStep(pause_seconds=600), CanaryStep(weight=60))
    demand = wanted(snapshot(rollout(step=1, steps=steps), stable=8, new=2))
    assert demand is not None
    assert NOW + 600 <= demand.batches[0].needed_at < NOW + 660
    assert sum(batch.pods for batch in demand.batches) == 8


def test_a_routed_canary_comes_beside_the_stable_pods() -> None:
    demand = wanted(snapshot(rollout(current_hash="v1", routed=True)))
    assert demand is not None
    assert demand.batches[0].pods == 2
    assert not demand.leaving_first


def test_a_preview_comes_first_and_the_others_with_the_promotion() -> None:
    found = rollout(steps=(), blue_green=True, preview_replicas=3)
    demand = wanted(snapshot(found, new=3))
    assert demand is not None
    assert [batch.pods for batch in demand.batches] == [7]
    assert demand.batches[0].needed_at > FAR
    assert demand.withheld is None
    assert not demand.leaving


def test_a_rollout_takes_the_template_of_the_deployment_that_it_refers_to() -> None:
    found = rollout(PodTemplate(), step=1, workload_ref="source")
    source = deployment(V2, replicas=0, key=WorkloadKey("Deployment", "shop", "source"), annotations={})
    made = snapshot(found, stable=8, new=2)
    demand = wanted(replace(made, workloads={**made.workloads, source.key: source}))
    assert demand is not None
    assert demand.images == ("registry.test/web:v2",)
    assert demand.pods == 8


@pytest.mark.parametrize(
    ("replicas", "weight", "surge", "counts"),
    [
        (10, 20, 3, (2, 8)),
        (10, 5, 0, (1, 9)),
        (10, 100, 3, (10, 0)),
        (10, 0, 3, (0, 10)),
        (1, 50, 1, (1, 1)),
        (1, 50, 0, (1, 0)),
        (3, 50, 0, (2, 1)),
        (0, 50, 1, (0, 0)),
    ],
)
def test_weights_become_pods_as_in_the_controller(
    replicas: int, weight: int, surge: int, counts: tuple[int, int]
) -> None:
    assert weighted_counts(replicas, weight, surge) == counts


@given(
    replicas=st.integers(1, 40),
    new=st.integers(0, 40),
    steps=st.lists(
        st.builds(
            CanaryStep,
            weight=st.none() | st.integers(0, 100),
            scale_replicas=st.none() | st.integers(0, 60),
            scale_weight=st.none() | st.integers(0, 100),
            match_traffic=st.booleans(),
            pause_seconds=st.none() | st.floats(0, 1e5),
            waits=st.booleans(),
        ),
        max_size=6,
    ),
    step=st.integers(0, 6),
    routed=st.booleans(),
    surge=st.integers(0, 5),
    unavailable=st.integers(0, 5),
)
def test_whatever_the_steps_all_pods_come_once_and_in_order(
    replicas: int,
    new: int,
    steps: list[CanaryStep],
    step: int,
    routed: bool,
    surge: int,
    unavailable: int,
) -> None:
    new = min(new, replicas)
    state = Rollout(steps=tuple(steps), step=min(step, len(steps)), routed=routed)
    workload = replace(rollout(replicas=replicas), max_surge=surge, max_unavailable=unavailable)
    counts = Counts(replicas, new, new, replicas, replicas)
    batches = canary_batches(workload, state, counts, NOW, Times((), (), 5.0, 25.0))
    assert sum(batch.pods for batch in batches) >= replicas - new
    assert all(batch.pods > 0 and batch.leaving >= 0 for batch in batches)
    assert sum(batch.leaving for batch in batches) <= replicas
    assert [batch.needed_at for batch in batches] == sorted(batch.needed_at for batch in batches)


def batches_of(state: Rollout, counts: Counts) -> tuple[Batch, ...]:
    workload = replace(rollout(replicas=40), max_surge="25%", max_unavailable="25%")
    return canary_batches(workload, state, counts, NOW, Times((), (), 5.0, 25.0))


def test_a_step_after_a_pause_begins_at_rest_and_says_who_goes_with_it() -> None:
    """As its controller goes on with 40 pods: ten more, ten old ones told to go, six more; later six more go."""
    steps = (
        CanaryStep(weight=20),
        CanaryStep(pause_seconds=60.0),
        CanaryStep(weight=60),
        CanaryStep(pause_seconds=5.0),
    )
    found = batches_of(Rollout(steps=steps, step=1), Counts(40, 8, 8, 32, 32))
    assert [(batch.pods, batch.leaving, batch.after_rest, batch.at_once) for batch in found] == [
        (10, 0, True, 10),
        (6, 0, False, None),
        (10, 16, False, 10),
        (6, 0, False, None),
    ]


def test_a_pause_that_has_begun_ends_when_it_is_over() -> None:
    steps = (CanaryStep(weight=20), CanaryStep(pause_seconds=60.0))
    counts = Counts(40, 8, 8, 32, 32)
    assert batches_of(Rollout(steps=steps, step=1), counts)[0].needed_at == NOW + 60
    assert batches_of(Rollout(steps=steps, step=1, paused_at=NOW - 45), counts)[0].needed_at == NOW + 15
    assert batches_of(Rollout(steps=steps, step=1, paused_at=NOW - 90), counts)[0].needed_at == NOW
