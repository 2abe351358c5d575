"""Which workloads a policy gates, and how the admission policy is told."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.controller.gatekeeper import Gatekeeper
from prewarm.delivery.gated import MAX_LENGTH, gated_by_policy, gated_text
from prewarm.history import History
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Namespace, Workload, WorkloadKey
from prewarm.planning import plan
from tests.support.clusters import ENABLED, WEB, cluster, deployment, node, template

V1 = template("registry.test/web:v1")
GATES = Policy(gate_seconds=300.0)


def gated(workload: Workload, policy: Policy = GATES, **fields: Any) -> dict[str, float]:
    found = gated_by_policy(cluster(workloads=[workload], policies=[policy], **fields))
    return {str(key): seconds for key, seconds in found.items()}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_covered_workload_is_gated_for_as_long_as_the_policy_says(kind: str) -> None:
    found = deployment(V1, key=WorkloadKey(kind, "shop", "web"))
    assert gated(found) == {f"{kind.lower()}/shop/web": 300.0}


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": {}},
        {"annotations": {**ENABLED, "prewarm.dev/gate": "false"}},
        {"annotations": {**ENABLED, "prewarm.dev/gate": "10m"}},
        {"annotations": {"prewarm.dev/enabled": "false"}},
        {"key": WorkloadKey("DaemonSet", "shop", "web")},
        {"deleted_at": 999.0},
    ],
    ids=["not covered", "opted out", "speaks for itself", "disabled", "cannot be held", "going"],
)
def test_these_are_not(fields: dict[str, Any]) -> None:
    assert gated(deployment(V1, **fields)) == {}


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        replace(GATES, gate_seconds=0.0),
        replace(GATES, mode=PolicyMode.SHADOW),
        replace(GATES, mode=PolicyMode.OFF),
        replace(GATES, rollout=False),
        replace(GATES, error="bad"),
    ],
)
def test_a_policy_that_prewarms_no_rollouts_gates_none(policy: Policy) -> None:
    assert gated(deployment(V1), policy) == {}


def test_what_a_policy_selects_is_gated_without_annotation() -> None:
    policy = replace(GATES, name="shops", namespace_selector=LabelSelector(match_labels=(("team", "shop"),)))
    found = deployment(V1, annotations={})
    assert gated(found, policy, namespaces=[Namespace("shop", {"team": "shop"})]) == {"deployment/shop/web": 300.0}
    assert gated(found, policy, namespaces=[Namespace("shop", {"team": "other"})]) == {}


def many(count: int) -> ClusterSnapshot:
    keys = [WorkloadKey("Deployment", "shop", f"web-{number:05d}") for number in range(count)]
    return cluster(workloads=[deployment(V1, key=key) for key in keys], policies=[GATES])


def test_looking_at_what_changed_gives_the_same_as_looking_at_all() -> None:
    before = many(5)
    known = gated_by_policy(before)
    changed = WorkloadKey("Deployment", "shop", "web-00002")
    gone = WorkloadKey("Deployment", "shop", "web-00003")
    workloads = {key: found for key, found in before.workloads.items() if key != gone}
    workloads[changed] = replace(workloads[changed], annotations={**ENABLED, "prewarm.dev/gate": "false"})
    after = replace(before, workloads=workloads)
    assert gated_by_policy(after, known, {changed, gone}) == gated_by_policy(after)
    assert len(gated_by_policy(after)) == 3


def test_the_list_is_bounded_and_says_what_it_has_no_room_for() -> None:
    text, left_out = gated_text(gated_by_policy(many(3000)))
    assert len(text) <= MAX_LENGTH
    assert text.startswith("deployment/shop/web-00000=300,deployment/shop/web-00001=300,")
    assert len(text.split(",")) + left_out == 3000
    assert left_out > 0


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([f"w{number}" for number in range(9)]), st.floats(0.1, 3600)))
def test_every_entry_is_found_by_the_start_that_the_admission_policy_looks_for(seconds: dict[str, float]) -> None:
    text, left_out = gated_text({WorkloadKey("Deployment", "shop", name): value for name, value in seconds.items()})
    entries = text.split(",") if text else []
    assert left_out == 0
    for name in seconds:
        (found,) = [entry for entry in entries if entry.startswith(f"deployment/shop/{name}=")]
        assert int(found.split("=")[1]) >= 1


def test_the_gatekeeper_tells_what_changed_and_first_of_all_that_nothing_is_gated() -> None:
    """The list of an instance that led before may name what nobody gates any more."""
    keeper = Gatekeeper()
    bare = cluster([node("n0")], workloads=[deployment(V1)])
    assert keeper.gated(bare, plan(bare, History(), only=[WEB])) is None
    assert keeper.gated(bare, plan(bare, History())) == ""
    assert keeper.gated(bare, plan(bare, History())) is None
    covered = replace(bare, policies={"default": GATES})
    assert keeper.gated(covered, plan(covered, History(), only=[WEB])) == "deployment/shop/web=300"
    assert keeper.gated(covered, plan(covered, History(), only=[WEB])) is None
    assert keeper.gated(bare, plan(bare, History(), only=[WEB])) == ""
