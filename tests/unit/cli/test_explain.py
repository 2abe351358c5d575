"""Sentences for the person on call: why a pod was cold, a node left out, a workload not covered."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.cli.explain_report import data
from prewarm.cli.explanation import explain_node, explain_pod, explain_workload, why
from prewarm.history import History
from prewarm.model.nodes import FailedPull, NodeImages
from prewarm.model.outcomes import ContainerStart, Outcome, PlanInForce
from prewarm.model.pods import Pod
from prewarm.planning import plan
from tests.support.clusters import WEB, cluster, deployment, node, template

IMAGE = "registry.test/web:v2"
V1 = template("registry.test/web:v1")


def start(outcome: Outcome = Outcome.MISS_UNPREDICTED, on: str = "n7", **fields: Any) -> ContainerStart:
    values: dict[str, Any] = {
        "workload": WEB,
        "pod_uid": "uid-1",
        "container": "c0",
        "image": IMAGE,
        "node": on,
        "outcome": outcome,
        "created_at": 1000.0,
        "started_at": 1021.0,
        "pod_name": "web-1",
        **fields,
    }
    return ContainerStart(**values)


def in_force(*nodes: str, since: float = 990.0, **fields: Any) -> PlanInForce:
    return PlanInForce(WEB, "v2", (IMAGE,), nodes, since=since, **fields)


def said(found: ContainerStart, *plans: PlanInForce) -> str:
    return why(found, cluster(), History(plans_in_force=plans))


def test_a_hit_says_what_it_saved() -> None:
    line = said(start(Outcome.HIT_PREWARMED, lead_seconds=12.4, saved_seconds=20.2))
    assert line == "our pull had the image there, 12 s before the pod was created; that saved about 20 s"


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        ((), "no plan named the image"),
        ((in_force("n1", "n2"),), "n7 was not among the 2 nodes planned (n1, n2)"),
        ((in_force("n1", skipped=(("n7", "BeyondCoverage"),)),), "n7 was left out: BeyondCoverage (raise the policy's"),
        ((in_force("n1", skipped=(("n7", "NodeCordoned"),)),), "n7 was left out: NodeCordoned"),
        ((in_force("n7", since=1010.0),), "the pod was created before the plan"),
        ((in_force("n7"),), "n7 was planned, but its pull had not begun"),
        ((in_force("n7", until=500.0),), "no plan named the image"),
    ],
)
def test_a_miss_says_what_the_plan_of_the_time_said(plans: tuple[PlanInForce, ...], expected: str) -> None:
    line = said(start(pull_seconds=20.5), *plans)
    assert expected in line
    assert "(pulling took 20.5 s)" in line


def test_a_miss_by_failure_gives_the_kubelets_words() -> None:
    failure = FailedPull(IMAGE, "shop/cache", "uid", "NotFound", "manifest unknown", 3, 990.0)
    record = NodeImages("n7", "uid-n7", "boot-n7", failures=(failure,))
    snapshot = cluster([node("n7")], node_images=[record])
    assert "NotFound, manifest unknown" in why(start(Outcome.MISS_FAILED), snapshot, History())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_sentence(outcome: Outcome) -> None:
    assert len(said(start(outcome))) > 20


def test_a_workload_says_how_it_is_covered_what_was_predicted_and_what_happened() -> None:
    workload = deployment(V1)
    history = History(
        plans_in_force=(in_force("n1", "n7"),),
        starts=(start(Outcome.HIT_PREWARMED), start(Outcome.MISS_UNPREDICTED, "n3", pod_uid="uid-2")),
    )
    snapshot = cluster([node("n1")], workloads=[workload])
    told = explain_workload(WEB, snapshot, history)
    assert told is not None
    assert told.covered == "it is covered by PrewarmPolicy default (mode Active)"
    assert told.ratio == 0.5
    assert dict(told.outcomes) == {Outcome.HIT_PREWARMED: 1, Outcome.MISS_UNPREDICTED: 1}
    printed = data(told, plan(snapshot, history, only=[WEB]), snapshot)
    assert printed["hitRatio"] == 0.5
    predicted = printed["predicted"]
    assert isinstance(predicted, list)
    assert len(predicted) == 1


def test_a_workload_that_did_not_opt_in_is_told_how() -> None:
    told = explain_workload(WEB, cluster(workloads=[deployment(V1, annotations={})]), History())
    assert told is not None
    assert told.covered.startswith('it is not covered: annotate it with prewarm.dev/enabled="true"')


def test_what_nobody_has_ever_seen_is_not_explained() -> None:
    assert explain_workload(WEB, cluster(), History()) is None


def test_a_pod_that_is_gone_is_explained_by_its_name() -> None:
    (line,) = explain_pod(None, "web-1", cluster(), History(starts=(start(),)))
    assert line.startswith("c0 (registry.test/web:v2) on n7 at 1970-01-01 00:17:01 UTC: miss_unpredicted: no plan")


def test_a_namesake_in_another_namespace_is_not_mixed_up() -> None:
    pod = Pod("other", "web-1", "uid-9", node_name="n1")
    assert explain_pod(pod, "web-1", cluster(pods=[pod]), History(starts=(start(),))) == ()


def test_a_pod_without_a_node_says_who_knows_why() -> None:
    pod = Pod("shop", "web-2", "uid-2")
    (line,) = explain_pod(pod, "web-2", cluster(pods=[pod]), History())
    assert "no node yet" in line


def test_a_node_says_whether_it_takes_pulls_and_which_plans_speak_of_it() -> None:
    history = History(
        plans_in_force=(in_force("n7"), replace(in_force("n1", skipped=(("n7", "Unlikely"),)), revision="v3")),
        starts=(start(Outcome.HIT_PREWARMED),),
    )
    lines = explain_node("n7", cluster([replace(node("n7"), disk_pressure=True)]), history)
    assert lines[0] == "nothing is pulled there now: DiskPressure"
    assert lines[1].startswith("planned for deployment/shop/web since")
    assert lines[2].startswith("left out for deployment/shop/web since")
    assert "Unlikely" in lines[2]
    assert "hit_prewarmed" in lines[3]
