from typing import Any

import pytest

from prewarm.demand import coverage, covering_policy
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.selectors import LabelSelector
from prewarm.model.workloads import Namespace
from tests.support.clusters import WEB, cluster, deployment, template

TEMPLATE = template("registry.test/web:v1")
SHOPS = LabelSelector(match_labels=(("team", "shop"),))


def covered(
    annotations: dict[str, str], *policies: Policy, namespace_labels: dict[str, str] | None = None, **fields: Any
) -> Policy | None:
    found = deployment(TEMPLATE, annotations=annotations, **fields)
    namespace = Namespace("shop", namespace_labels or {})
    return covering_policy(cluster(workloads=[found], policies=policies, namespaces=[namespace]), found)


@pytest.mark.parametrize(
    ("workload", "namespace", "expected"),
    [
        (None, None, False),
        ("true", None, True),
        ("false", None, False),
        (None, "true", True),
        ("false", "true", False),
        ("true", "false", True),
        (None, "false", False),
    ],
)
def test_the_workloads_annotation_decides_before_its_namespaces_label(
    workload: str | None, namespace: str | None, expected: bool
) -> None:
    annotations = {} if workload is None else {"prewarm.dev/enabled": workload}
    labels = {} if namespace is None else {"prewarm.dev/enabled": namespace}
    assert (covered(annotations, namespace_labels=labels) is not None) is expected


def test_without_any_policy_object_the_defaults_apply() -> None:
    assert covered({"prewarm.dev/enabled": "true"}) == Policy()


def test_a_policy_named_default_applies_where_none_is_named() -> None:
    default = Policy("default", coverage=0.5)
    assert covered({"prewarm.dev/enabled": "true"}, default) == default


def test_a_named_policy_applies() -> None:
    eager = Policy("eager")
    annotations = {"prewarm.dev/enabled": "true", "prewarm.dev/policy": "eager"}
    assert covered(annotations, Policy("default"), eager) == eager


def test_a_policy_that_selects_the_namespace_covers_without_annotation() -> None:
    selecting = Policy("shops", namespace_selector=SHOPS)
    assert covered({}, selecting, namespace_labels={"team": "shop"}) == selecting
    assert covered({}, selecting, namespace_labels={"team": "other"}) is None
    assert covered({"prewarm.dev/enabled": "false"}, selecting, namespace_labels={"team": "shop"}) is None


def test_a_workload_selector_narrows_a_policys_namespaces() -> None:
    selecting = Policy("shops", namespace_selector=SHOPS, workload_selector=LabelSelector((("tier", "front"),)))
    assert covered({}, selecting, namespace_labels={"team": "shop"}, labels={"tier": "front"}) == selecting
    assert covered({}, selecting, namespace_labels={"team": "shop"}, labels={"tier": "back"}) is None


def test_mode_off_covers_nothing() -> None:
    assert covered({"prewarm.dev/enabled": "true"}, Policy("default", mode=PolicyMode.OFF)) is None


def test_a_workload_that_is_being_deleted_is_not_covered() -> None:
    assert covered({"prewarm.dev/enabled": "true"}, deleted_at=1.0) is None


def test_a_question_covers_its_workload() -> None:
    found = deployment(TEMPLATE, annotations={})
    snapshot = cluster(workloads=[found])
    asked = type(snapshot)(workloads=snapshot.workloads, asked=frozenset({WEB}))
    assert covering_policy(asked, found) == Policy()


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        ("enabled", "yes", 'write "true" or "false"'),
        ("enabled", "x" * 100_000, 'write "true" or "false"'),
        ("policy", "missing", "which is no PrewarmPolicy (there are: default)"),
        ("headroom", "lots", "write a percentage"),
        ("headroom", "1001%", "write a percentage"),
        ("headroom", "-5", "write a percentage"),
        ("headroom", "٣", "write a percentage"),
        ("exclude-containers", "a,,b", "separated by commas"),
        ("exclude-containers", "Not A Name", "separated by commas"),
        ("exclude-containers", ",".join(["a"] * 65), "separated by commas"),
        ("exclude-containers", "a" * 1_000_000, "separated by commas"),
    ],
)
def test_a_malformed_annotation_is_one_short_line_and_no_guess(annotation: str, value: str, told: str) -> None:
    annotations = {"prewarm.dev/enabled": "true", f"prewarm.dev/{annotation}": value}
    found = deployment(TEMPLATE, annotations=annotations)
    wishes = coverage(cluster(workloads=[found], policies=[Policy("default")]), found)
    assert wishes.policy is None
    assert told in wishes.problem
    assert f"prewarm.dev/{annotation}" in wishes.problem
    assert "deployment/shop/web" in wishes.problem
    assert "\n" not in wishes.problem
    assert len(wishes.problem) < 400


def test_an_invalid_policy_is_a_problem_of_the_workloads_that_it_covers() -> None:
    found = deployment(TEMPLATE)
    wishes = coverage(cluster(workloads=[found], policies=[Policy("default", error="coverage 2 is above 1")]), found)
    assert wishes.policy is None
    assert wishes.problem == "PrewarmPolicy default of deployment/shop/web is invalid: coverage 2 is above 1"


def test_headroom_and_excluded_containers_are_read() -> None:
    annotations = {
        "prewarm.dev/enabled": "true",
        "prewarm.dev/headroom": "30%",
        "prewarm.dev/exclude-containers": "proxy, debug",
    }
    found = deployment(TEMPLATE, annotations=annotations)
    wishes = coverage(cluster(workloads=[found]), found)
    assert wishes.headroom_percent == 30
    assert wishes.excluded == {"proxy", "debug"}
