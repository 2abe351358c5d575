"""When a held rollout is let go: every hold ends."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.api.plan_annotation import encode_summary, summary
from prewarm.cluster.writer import opening
from prewarm.delivery.gates import GateReason, decide_gates, gates, longest_hold
from prewarm.history import History
from prewarm.model.image_caches import Condition, ImageCache, ImageCacheStatus, ImageList, Policy, PolicyMode
from prewarm.model.nodes import NodeImageStatus
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey
from prewarm.planning import LISTED_SECONDS, plan
from tests.support.clusters import ENABLED, WEB, cluster, deployment, node, template

NOW = 1_790_000_000.0
SINCE = "2026-09-21T14:13:10Z"
"""Ten seconds before NOW."""
V2 = template("registry.test/web:v2")
NODES = [node(f"n{number}") for number in range(4)]


def held(marker: str = SINCE, **fields: Any) -> Workload:
    annotations = {**ENABLED, "prewarm.dev/gate": "true", "prewarm.dev/gate-held": marker}
    values: dict[str, Any] = {"annotations": annotations, "paused": True, "resource_version": "7", **fields}
    return deployment(V2, **values)


@pytest.mark.parametrize(("seconds", "expected"), [(9, GateReason.TIMEOUT), (11, None), (999999, None)])
def test_a_hold_by_policy_says_itself_how_long_it_lasts(seconds: int, expected: GateReason | None) -> None:
    """The policy may be gone by then, and the command that opens expired gates reads workloads alone."""
    assert reason(snapshot(held(f"{SINCE} for={seconds}"))) is expected


def test_no_marker_makes_a_hold_last_for_ever() -> None:
    (gate,) = gates(snapshot(held(f"{SINCE} for=999999")))
    assert gate.longest == 3600


def cache(workload: Workload, *, observed: int = 1, **conditions: bool) -> ImageCache:
    return ImageCache(
        "shop",
        "planned",
        uid="uid-planned",
        generation=1,
        planned=True,
        workload=str(workload.key),
        plan_annotation=encode_summary(
            summary("Rollout", workload.template_hash, pods=4, predictability=1.0, coverage=1.0, nodes=[])
        ),
        status=ImageCacheStatus(
            observed_generation=observed,
            conditions=tuple(Condition(kind, on, "Because", f"{kind} {on}", 0.0) for kind, on in conditions.items()),
        ),
    )


def snapshot(workload: Workload, *caches: ImageCache, **fields: Any) -> ClusterSnapshot:
    return cluster(NODES, workloads=[workload], image_caches=caches, now=NOW, **fields)


def reason(found: ClusterSnapshot, *, planned: bool = False) -> GateReason | None:
    decided = decide_gates(found, plan(found, History()) if planned else None)
    assert len(decided.opened) + decided.held <= 1
    return decided.opened[0].reason if decided.opened else None


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"Ready": True, "Progressing": False, "Degraded": False}, GateReason.WARM),
        ({"Ready": False, "Progressing": True, "Degraded": False}, None),
        ({"Ready": False, "Progressing": True, "Degraded": True}, None),
        ({"Ready": False, "Progressing": False, "Degraded": True}, GateReason.FAILED),
        ({"Ready": False, "Progressing": False, "Degraded": False}, GateReason.NOTHING_TO_PULL),
        ({}, None),
    ],
)
def test_the_rollouts_cache_decides(conditions: dict[str, bool], expected: GateReason | None) -> None:
    workload = held()
    assert reason(snapshot(workload, cache(workload, **conditions))) is expected


def drawing(workload: Workload, listing: int, ready_at: float, entries: int = 1) -> ClusterSnapshot:
    """Four warm nodes are to draw the pods; so many of them list the image among `entries`."""
    found = cache(workload, Ready=True, Progressing=False, Degraded=False)
    ready = tuple(replace(condition, since=ready_at) for condition in found.status.conditions)
    image = workload.template.shape.images[0]
    words = summary("Rollout", workload.template_hash, pods=4, predictability=1.0, coverage=1.0, nodes=[], drawn=True)
    nodes = [
        replace(
            one,
            images=tuple(
                NodeImageStatus((image if number < listing and not entry else f"registry.test/other:{entry}",), 10**8)
                for entry in range(entries)
            ),
        )
        for number, one in enumerate(NODES)
    ]
    drawn = replace(
        found,
        lists=(ImageList((image,), node_names=tuple(one.name for one in nodes)),),
        plan_annotation=encode_summary(words),
        status=replace(found.status, conditions=ready),
    )
    return cluster(nodes, workloads=[workload], image_caches=[drawn], now=NOW)


def test_pods_that_are_drawn_to_warm_nodes_wait_until_these_list_the_image() -> None:
    """ImageLocality goes by node status, which kubelets write up to 38 seconds later."""
    waiting = decide_gates(drawing(held(), 3, NOW - 5.0), None)
    assert not waiting.opened
    assert waiting.wake_at == NOW - 5.0 + LISTED_SECONDS
    assert reason(drawing(held(), 4, NOW - 5.0)) is GateReason.WARM


def test_nobody_waits_longer_for_a_list_than_kubelets_take() -> None:
    assert reason(drawing(held(), 0, NOW - LISTED_SECONDS)) is GateReason.WARM


def test_nobody_waits_for_a_list_that_is_full() -> None:
    assert reason(drawing(held(), 0, NOW - 5.0, entries=50)) is GateReason.WARM


def test_a_status_of_an_older_spec_says_nothing() -> None:
    workload = held()
    assert reason(snapshot(workload, cache(workload, observed=0, Ready=True, Progressing=False))) is None


def test_the_cache_of_another_revision_says_nothing() -> None:
    workload = held()
    other = cache(replace(workload, template_hash="v1"), Ready=True, Progressing=False)
    assert reason(snapshot(workload, other)) is None


def test_a_plan_with_pulls_keeps_the_gate_shut_until_its_cache_is_there() -> None:
    assert reason(snapshot(held()), planned=True) is None


def test_without_a_plan_nothing_is_decided_before_the_time_is_up() -> None:
    assert reason(snapshot(held())) is None


def test_a_clock_that_was_set_back_keeps_no_gate_shut() -> None:
    """Held at noon; then it is eleven again: nobody waits for an hour."""
    found = snapshot(held())
    assert reason(replace(found, taken_at=NOW - 60.0)) is None
    assert reason(replace(found, taken_at=NOW - 3600.0)) is GateReason.TIMEOUT


def test_a_plan_that_misses_nothing_opens_at_once() -> None:
    """A rollback to images that are on the nodes, or a template without images to pull."""
    workload = held(annotations={**held().annotations, "prewarm.dev/exclude-containers": "c0"})
    assert reason(snapshot(workload), planned=True) is GateReason.NOTHING_TO_PULL


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("true", 600), ("9s", 9), ("10m", 600), ("99h", 3600), ("", 600), ("soon", 600), ("-5m", 600), ("x" * 9999, 600)],
)
def test_the_annotation_says_for_how_long_at_most(value: str, seconds: float) -> None:
    workload = held(annotations={**held().annotations, "prewarm.dev/gate": value})
    assert longest_hold(workload) == seconds
    expected = GateReason.TIMEOUT if seconds < 10 else None
    assert reason(snapshot(workload)) is expected


def test_the_deadline_wakes_the_controller() -> None:
    assert decide_gates(snapshot(held()), None).wake_at == NOW - 10 + 600


def test_a_marker_that_came_with_another_objects_manifest_opens() -> None:
    """A backup that is restored, or a copy under a new name, has the pause of a rollout that nobody looks after."""
    assert reason(snapshot(held(f"{SINCE} generation=3", generation=1))) is GateReason.DAMAGED


@pytest.mark.parametrize("generation", [3, 4, 99])
def test_a_change_during_the_hold_is_judged_by_its_own_images(generation: int) -> None:
    """Scaled, or changed again: the marker stays that of the first change, and the cache is that of the last."""
    workload = held(f"{SINCE} generation=3", generation=generation)
    other = cache(replace(workload, template_hash="v1"), Ready=True, Progressing=False)
    own = cache(workload, Ready=True, Progressing=False)
    assert reason(snapshot(workload, other)) is None
    assert reason(snapshot(workload, own)) is GateReason.WARM


@pytest.mark.parametrize(
    "marker", ["", "yesterday", "2026-09-21", "2026-09-21T14:13:10", "x" * 99_999, SINCE + " partition=x"]
)
def test_a_damaged_marker_opens(marker: str) -> None:
    assert reason(snapshot(held(marker))) is GateReason.DAMAGED


def test_what_a_person_resumed_is_only_tidied_up() -> None:
    (opened,) = decide_gates(snapshot(held(paused=False)), None).opened
    assert opened.reason is GateReason.RESUMED
    patch = opened.patch
    assert not patch.held
    assert {"op": "remove", "path": "/spec/paused"} not in list(opening(patch))  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [Policy(mode=PolicyMode.OFF), Policy(mode=PolicyMode.SHADOW), Policy(rollout=False)])
def test_a_policy_that_pulls_nothing_holds_nothing(policy: Policy) -> None:
    assert reason(snapshot(held(), policies=[policy])) is GateReason.NOT_COVERED


def test_who_opts_out_is_not_held() -> None:
    annotations = {**held().annotations, "prewarm.dev/enabled": "false"}
    assert reason(snapshot(held(annotations=annotations))) is GateReason.NOT_COVERED


def test_a_workload_without_the_marker_is_never_touched() -> None:
    workload = held(annotations={**ENABLED, "prewarm.dev/gate": "true"})
    gates = decide_gates(snapshot(workload), None)
    assert (gates.opened, gates.held) == ((), 0)


def test_opening_is_one_patch_that_any_other_change_makes_void() -> None:
    workload = held()
    (opened,) = decide_gates(snapshot(workload, cache(workload, Ready=True, Progressing=False)), None).opened
    patch, event = opened.patch, opened.patch.told
    assert event is not None
    assert opening(patch) == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "test", "path": "/metadata/annotations/prewarm.dev~1gate-held", "value": SINCE},
        {"op": "remove", "path": "/metadata/annotations/prewarm.dev~1gate-held"},
        {"op": "remove", "path": "/spec/paused"},
    ]
    assert event.message == "Warm: Ready True"


def test_a_stateful_set_gets_its_partition_back() -> None:
    key = WorkloadKey("StatefulSet", "shop", "web")
    workload = held(SINCE + " partition=2", key=key, paused=False, partition=4, strategy=UpdateStrategy.ROLLING_UPDATE)
    found = snapshot(workload, cache(workload, Ready=True, Progressing=False))
    (opened,) = decide_gates(found, None).opened
    (*_, last) = list(opening(opened.patch))  # type: ignore[arg-type]
    assert last == {"op": "replace", "path": "/spec/updateStrategy/rollingUpdate/partition", "value": 2}


@pytest.mark.parametrize("partition", [0, 1, 5])
def test_a_partition_that_a_person_sets_stays(partition: int) -> None:
    """As a resumed Deployment stays resumed."""
    key = WorkloadKey("StatefulSet", "shop", "web")
    marker = f"{SINCE} generation=3 partition=0 set=4 for=60"
    workload = held(marker, key=key, generation=4, paused=False, partition=partition)
    (opened,) = decide_gates(snapshot(workload), None).opened
    assert opened.reason is GateReason.RESUMED
    assert "rollingUpdate/partition" not in str(opening(opened.patch))


@pytest.mark.parametrize("put", [4, 2147483647], ids=["as an earlier version holds", "as this one does"])
def test_a_stateful_set_held_by_the_partition_in_its_marker_stays_held(put: int) -> None:
    key = WorkloadKey("StatefulSet", "shop", "web")
    marker = f"{SINCE} generation=3 partition=0 set={put} for=60"
    found = snapshot(held(marker, key=key, generation=3, paused=False, partition=put))
    assert reason(found) is None
    assert decide_gates(found, None).wake_at == NOW - 10 + 60


@pytest.mark.parametrize("put", [4, 2147483647], ids=["as an earlier version holds", "as this one does"])
def test_a_stateful_set_is_opened_whatever_partition_holds_it(put: int) -> None:
    key = WorkloadKey("StatefulSet", "shop", "web")
    marker = f"{SINCE} generation=3 partition=0 set={put}"
    workload = held(marker, key=key, generation=3, paused=False, partition=put, strategy=UpdateStrategy.ROLLING_UPDATE)
    (opened,) = decide_gates(snapshot(workload, cache(workload, Ready=True, Progressing=False)), None).opened
    (*_, last) = list(opening(opened.patch))  # type: ignore[arg-type]
    assert last == {"op": "replace", "path": "/spec/updateStrategy/rollingUpdate/partition", "value": 0}


def test_other_kinds_are_never_held() -> None:
    workload = held(key=WorkloadKey("DaemonSet", "shop", "web"))
    assert reason(snapshot(workload)) is None
    assert WEB.kind == "Deployment"
