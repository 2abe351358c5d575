import re
from pathlib import Path

import pytest
import yaml

from e2e.manifests import documents
from e2e.rights import PAGE, rights, rights_page
from prewarm.cli.reference import metrics_reference
from prewarm.model.outcomes import Outcome
from prewarm.puller import FailureReason, WithheldReason

ROOT = Path(__file__).parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"
RUNBOOKS = ROOT / "docs" / "runbooks"


def test_the_page_of_rights_says_what_the_installation_grants() -> None:
    objects = documents((ROOT / "deploy" / "prewarm.yaml").read_text(encoding="utf-8"))
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page.startswith(rights_page(objects)), "run python -m e2e.plain_yaml"
    assert {right.resource for right in rights(objects)}.isdisjoint({"secrets", "serviceaccounts", "pods/exec"})
    assert "*" not in {verb for right in rights(objects) for verb in right.verbs}


def test_a_right_without_a_reason_is_no_page() -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    with pytest.raises(ValueError, match="secrets"):
        rights_page([{"kind": "ClusterRole", "rules": [rule]}])


def test_alerts_use_series_and_outcomes_that_exist_and_runbooks_that_are_there() -> None:
    series = set(re.findall(r"`(prewarm_\w+)`", metrics_reference()))
    groups = yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert set(re.findall(r"prewarm_\w+", rule["expr"])) <= series, rule["alert"]
        assert set(re.findall(r'outcome!?="(\w+)"', rule["expr"])) <= set(Outcome), rule["alert"]
        assert (ROOT / rule["annotations"]["runbook"]).is_file(), rule["alert"]
        assert rule["alert"] in OPERATIONS.read_text(encoding="utf-8")


def test_series_that_the_pages_name_exist() -> None:
    known = {name.removesuffix("_total") for name in re.findall(r"`(prewarm_\w+)`", metrics_reference())}
    pages = [OPERATIONS, *sorted(RUNBOOKS.glob("*.md"))]
    named = {name for page in pages for name in re.findall(r"\bprewarm_[a-z_]+", page.read_text(encoding="utf-8"))}
    assert named
    unknown = {name for name in named if name.removesuffix("_total").removesuffix("_bucket") not in known}
    assert unknown <= {"prewarm_pulls_"}  # a pattern for grep


def test_every_bad_outcome_has_its_section() -> None:
    page = (RUNBOOKS / "cold-pod.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## `(\w+)`$", page, re.MULTILINE))
    assert sections == {outcome for outcome in Outcome if not outcome.startswith("hit_")}


def test_every_failure_and_every_wait_has_an_answer() -> None:
    failures = (RUNBOOKS / "pulls-fail.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", failures, re.MULTILINE)) == set(FailureReason)
    waits = "".join((RUNBOOKS / f"{name}.md").read_text(encoding="utf-8") for name in ("cold-pod", "nothing-prewarmed"))
    assert [reason for reason in WithheldReason if f"`{reason}`" not in waits] == []
