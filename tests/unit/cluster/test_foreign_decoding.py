"""What is read of OpenKruise's, Argo's and Flagger's objects."""

import json
from typing import Any

import pytest

from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.progressive import CanaryStep, FlaggerPhase, InPlace
from prewarm.model.workloads import UpdateStrategy, Workload

TEMPLATE = {"spec": {"containers": [{"name": "app", "image": "a:v1"}]}}


def clone_set(replicas: int = 10, **strategy: Any) -> Workload:
    spec = {"replicas": replicas, "template": TEMPLATE, "updateStrategy": strategy}
    value = Kinds().clone_sets.one(json.dumps({"metadata": {"name": "web"}, "spec": spec}).encode()).value
    assert value is not None
    return value


def rollout(strategy: dict[str, Any], **status: Any) -> Workload:
    wire = {"metadata": {"name": "web"}, "spec": {"template": TEMPLATE, "strategy": strategy}, "status": status}
    value = Kinds().rollouts.one(json.dumps(wire).encode()).value
    assert value is not None
    assert value.rollout is not None
    return value


@pytest.mark.parametrize(
    ("partition", "replicas", "kept"),
    [(3, 10, 3), ("25%", 10, 3), ("99%", 10, 9), ("95%", 3, 2), ("100%", 10, 10), ("50%", 1, 1), (None, 10, 0)],
)
def test_a_percentage_of_pods_to_keep_rounds_up_but_leaves_one_over(
    partition: object, replicas: int, kept: int
) -> None:
    assert clone_set(replicas, partition=partition).partition == kept


@pytest.mark.parametrize(
    ("strategy", "unavailable"),
    [
        ({}, 2),
        ({"maxUnavailable": "25%"}, 3),
        ({"maxUnavailable": "25%", "maxSurge": 1}, "25%"),
        ({"maxUnavailable": 4}, 4),
    ],
)
def test_a_clone_sets_max_unavailable_rounds_up_where_nothing_surges(
    strategy: dict[str, Any], unavailable: object
) -> None:
    assert clone_set(**strategy).max_unavailable == unavailable


@pytest.mark.parametrize(
    ("strategy", "in_place"),
    [
        ({"type": "InPlaceIfPossible"}, InPlace.IF_POSSIBLE),
        ({"type": "InPlaceOnly"}, InPlace.ONLY),
        ({"type": "ReCreate"}, InPlace.NEVER),
        ({"rollingUpdate": {"podUpdatePolicy": "InPlaceOnly"}}, InPlace.ONLY),
    ],
)
def test_how_pods_are_updated(strategy: dict[str, Any], in_place: InPlace) -> None:
    found = clone_set(**strategy)
    assert found.in_place is in_place
    assert found.strategy is UpdateStrategy.ROLLING_UPDATE


def test_steps_of_a_canary_are_read_with_their_pauses() -> None:
    steps = [
        {"setWeight": 20},
        {"pause": {}},
        {"pause": {"duration": 90}},
        {"pause": {"duration": "1h30m"}},
        {"pause": {"duration": "45"}},
        {"setCanaryScale": {"replicas": 2}},
        {"analysis": {"templates": []}},
    ]
    found = rollout({"canary": {"steps": steps}}, currentStepIndex=2, observedGeneration="7", stableRS="abc")
    assert found.rollout is not None
    assert found.rollout.steps == (
        CanaryStep(weight=20),
        CanaryStep(waits=True),
        CanaryStep(pause_seconds=90),
        CanaryStep(pause_seconds=5400),
        CanaryStep(pause_seconds=45),
        CanaryStep(scale_replicas=2),
        CanaryStep(waits=True),
    )
    assert (found.rollout.step, found.observed_generation, found.rollout.stable_hash) == (2, 7, "abc")


@pytest.mark.parametrize(
    ("conditions", "since"),
    [
        (None, None),
        ([], None),
        ([{"reason": "CanaryPauseStep", "startTime": "1970-01-01T00:01:00Z"}], 60.0),
        ([{"startTime": "1970-01-01T00:01:00Z"}, {"startTime": "1970-01-01T00:02:00Z"}, {"startTime": "soon"}], 120.0),
    ],
)
def test_since_when_a_rollout_is_paused_is_known(conditions: object, since: float | None) -> None:
    found = rollout({"canary": {}}, pauseConditions=conditions).rollout
    assert found is not None
    assert found.paused_at == since


@pytest.mark.parametrize(("status", "doubted"), [("Running", False), ("Successful", False), ("Failed", True)])
def test_an_analysis_that_failed_is_known(status: str, doubted: bool) -> None:
    found = rollout({"canary": {}}, canary={"currentBackgroundAnalysisRunStatus": {"status": status}})
    assert found.rollout is not None
    assert found.rollout.doubted is doubted


@pytest.mark.parametrize(
    ("analysis", "status", "left"),
    [
        ({"iterations": 10}, {"iterations": 4}, 6),
        ({"maxWeight": 50, "stepWeight": 20}, {"canaryWeight": 20}, 2),
        ({"stepWeights": [5, 20, 50]}, {"canaryWeight": 5}, 2),
        ({}, {}, 0),
    ],
)
def test_how_many_checks_a_canary_has_before_it(analysis: dict[str, Any], status: dict[str, Any], left: int) -> None:
    wire = {
        "metadata": {"name": "web"},
        "spec": {"targetRef": {"kind": "Deployment", "name": "web"}, "analysis": {"interval": "30s", **analysis}},
        "status": {"phase": "Progressing", **status},
    }
    value = Kinds().canaries.one(json.dumps(wire).encode()).value
    assert value is not None
    assert value.flagger is not None
    assert value.flagger.phase is FlaggerPhase.PROGRESSING
    assert (value.flagger.checks_left, value.flagger.interval_seconds) == (left, 30)


def latest(**status: Any) -> str:
    wire = {"metadata": {"name": "web", "namespace": "flux-system"}, "status": status}
    value = Kinds().image_policies.one(json.dumps(wire).encode()).value
    assert value is not None
    return value.image


@pytest.mark.parametrize(
    ("status", "image"),
    [
        ({"latestRef": {"name": "registry.test/web", "tag": "v2"}}, "registry.test/web:v2"),
        (
            {"latestRef": {"name": "registry.test/web", "tag": "v2", "digest": "sha256:" + "a" * 64}},
            "registry.test/web:v2@sha256:" + "a" * 64,
        ),
        ({"latestRef": {"name": "registry.test/web", "tag": "v2"}, "latestImage": "old:v1"}, "registry.test/web:v2"),
        ({"latestImage": "registry.test/web:v2"}, "registry.test/web:v2"),
        ({"latestImage": "$(reboot)"}, ""),
        ({"latestRef": {"name": "registry.test/web"}}, ""),
        ({}, ""),
    ],
    ids=["v1", "with digest", "v1beta2", "v1beta1", "no reference", "no tag", "nothing found yet"],
)
def test_an_image_policy_names_the_image_that_flux_will_write(status: dict[str, Any], image: str) -> None:
    assert latest(**status) == image
