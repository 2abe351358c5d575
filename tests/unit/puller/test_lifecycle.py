"""Refreshes and runs in motion: what is asked for again, what is left alone, and when the work has ended."""

import json

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import Completion, ImageCache, ImageList, PodRetention
from prewarm.model.images import PullPolicy
from prewarm.model.intents import Create
from prewarm.model.nodes import Evidence, NodeImageStatus
from prewarm.puller import PullerSettings
from prewarm.puller.doubt import DOUBT_SECONDS
from prewarm.puller.lifecycle import FINISHED, SKIPPING_SECONDS
from prewarm.simulation.registry import synthetic_image
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
MOVING = "registry.test/shop/tool:latest"
WRONG = "registry.test/shop/web:v9"
SIZES = {APP: 40 * MB, MOVING: 20 * MB}
ONCE = Completion(once=True)


def cache(*images: str, name: str = "warm", **fields: object) -> ImageCache:
    values: dict[str, object] = {"generation": 1, "refresh_seconds": 0.0, "lists": (ImageList(images),), **fields}
    return ImageCache("shop", name, uid=f"uid-{name}", **values)  # type: ignore[arg-type]


def world(nodes: int = 2, settings: PullerSettings | None = None) -> World:
    made = World(registries(SIZES), settings=settings or PullerSettings())
    made.add_nodes(nodes)
    return made


def change(found: World, name: str = "warm", *, edited: bool = False, **fields: object) -> None:
    """Change a cache as kubectl would: the status stays, and an edit of the spec counts up the generation."""
    old = found.caches["shop", name]
    found.caches["shop", name] = replace(old, generation=old.generation + edited, **fields)


def test_interval_asks_for_moving_tags_only() -> None:
    found = world()
    found.add_cache(cache(APP, MOVING, refresh_seconds=600.0))
    found.settle(120)
    found.run(5)
    first = len(found.created)
    found.run(700)
    again = [json.loads(json.dumps(i.manifest)) for i in found.written if isinstance(i, Create)][first:]
    containers = [found for pod in again for found in pod["spec"]["containers"] if found["name"].startswith("pull-")]
    assert [(found["image"], found["imagePullPolicy"]) for found in containers] == [(MOVING, "Always")] * 2
    status = found.caches["shop", "warm"].status
    assert status.refreshed_at is not None
    assert status.succeeded == 4


def test_image_stays_ready_while_it_is_asked_for_again_and_if_that_fails() -> None:
    found = world()
    found.add_cache(cache(MOVING))
    found.settle(120)
    found.run(5)
    found.registries.remove(MOVING)
    change(found, refresh_request="now")
    for _ in range(30):
        found.run(1)
        assert found.condition("warm") == (True, "Warm")
    assert found.condition("warm", "Degraded") == (True, "PullsFailed")
    moved = synthetic_image("moved on", [20 * MB])
    found.registries.push(MOVING, moved)
    found.run(120)
    assert found.condition("warm", "Degraded")[0] is False
    assert {entry.digest for record in found.records.values() for entry in record.images} == {moved.digest}


@pytest.mark.parametrize("policy", [PullPolicy.ALWAYS, PullPolicy.IF_NOT_PRESENT])
def test_request_acts_once_for_each_value_over_restarts(policy: PullPolicy) -> None:
    found = world()
    found.add_cache(cache(APP, pull_policy=policy))
    found.settle(120)
    found.run(5)
    first = len(found.created)
    change(found, refresh_request="one")
    for _ in range(8):
        found.run(5)
        found.restart_controller()
    always = policy is PullPolicy.ALWAYS
    assert len(found.created) == first + (2 if always else 0)
    status = found.caches["shop", "warm"].status
    assert status.refresh_handled == "one"
    assert status.requested_at is not None
    change(found, refresh_request="two")
    found.run(60)
    assert len(found.created) == first + (4 if always else 0)


def test_empty_request_is_removed_after_it_was_heeded() -> None:
    found = world()
    found.add_cache(cache(MOVING))
    found.settle(120)
    found.run(5)
    for time in (1, 2):
        first = len(found.created)
        change(found, refresh_request="")
        found.run(30)
        assert found.caches["shop", "warm"].refresh_request is None
        assert found.caches["shop", "warm"].status.refresh_handled == ""
        assert len(found.created) == first + 2, time


def test_request_set_while_nobody_was_there_is_heeded() -> None:
    found = world()
    found.add_cache(cache(MOVING))
    found.settle(120)
    found.run(5)
    first = len(found.created)
    found.restart_controller()
    change(found, refresh_request="while down")
    found.now += 7200
    found.run(30)
    assert len(found.created) == first + 2


def test_interval_tries_what_failed_once_and_a_request_anew() -> None:
    found = world(1)
    found.add_cache(cache(WRONG, attempt_limit=2, refresh_seconds=600.0))
    found.run(300)
    assert len(found.created) == 2
    found.run(400)
    assert len(found.created) == 3
    change(found, refresh_request="mended?")
    found.run(100)
    assert len(found.created) == 5
    found.run(100)
    assert len(found.created) == 5


def test_restarts_forget_neither_attempts_nor_refreshes() -> None:
    found = world(1)
    found.add_cache(cache(WRONG, attempt_limit=2, refresh_seconds=600.0))
    for _ in range(35):
        found.run(20)
        found.restart_controller()
    assert len(found.created) == 3


@pytest.mark.parametrize("jump", [-3600.0, -30.0, 30.0, 3600.0])
def test_clock_that_jumps_starts_no_storm(jump: float) -> None:
    found = world()
    found.add_cache(cache(APP, MOVING, WRONG, refresh_seconds=600.0))
    found.run(300)
    change(found, refresh_request="now")
    found.run(5)
    before = len(found.created)
    # The kubelets keep their own time: it is the controller that is wrong.
    for name, held in found.caches.items():
        status = replace(held.status, requested_at=(held.status.requested_at or 0.0) + jump)
        found.caches[name] = replace(held, status=status)
    found.run(120)
    assert len(found.created) - before <= 2 * (2 + 5)


def test_pods_verify_nothing_without_doubt_and_old_unlisted_evidence_once() -> None:
    found = world(2)
    found.add_cache(cache(APP))
    found.settle(120)
    found.run(5)
    found.run(90)
    full = tuple(NodeImageStatus((f"registry.test/big-{n}:v1",), 10**10) for n in range(50))
    for name in found.nodes:
        # A full list, on which what we pulled has no place: the record never learnt that it was listed.
        found.nodes[name] = replace(found.nodes[name], images=full)
        record = found.records[name]
        images = tuple(replace(entry, size_bytes=0) for entry in record.images)
        found.records[name] = replace(record, images=images)
    first = len(found.created)
    change(found, refresh_request="fresh")
    found.run(30)
    assert len(found.created) == first
    for name, record in found.records.items():
        old = tuple(replace(entry, since=entry.since - DOUBT_SECONDS) for entry in record.images)
        found.records[name] = replace(record, images=old)
    change(found, refresh_request="old")
    found.run(30)
    assert len(found.created) == first + 2
    change(found, refresh_request="fresh again")
    found.run(30)
    assert len(found.created) == first + 2
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}


def test_disk_pressure_since_is_a_reason_for_doubt() -> None:
    found = world(2)
    found.add_cache(cache(APP))
    found.settle(120)
    found.run(90)
    full = tuple(NodeImageStatus((f"registry.test/big-{n}:v1",), 10**10) for n in range(50))
    for name in found.nodes:
        found.nodes[name] = replace(found.nodes[name], images=full)
        images = tuple(replace(entry, size_bytes=0) for entry in found.records[name].images)
        found.records[name] = replace(found.records[name], images=images)
    found.nodes["n1"] = replace(found.nodes["n1"], disk_pressure_changed_at=found.now)
    first = len(found.created)
    found.now += 10
    change(found, refresh_request="after pressure")
    found.run(30)
    assert len(found.created) == first + 1
    entry = next(entry for entry in found.records["n1"].images if entry.image == APP)
    assert entry.evidence is Evidence.OUR_PULL
    assert entry.since >= found.nodes["n1"].disk_pressure_changed_at


def test_once_ends_and_pulls_nothing_more() -> None:
    found = world()
    found.add_cache(cache(APP, completion=ONCE))
    found.run(60)
    assert found.condition("warm", FINISHED) == (True, "Succeeded")
    assert found.condition("warm") == (True, "Warm")
    told = found.caches["shop", "warm"].status
    found.add_nodes(3)
    found.restart_controller()
    found.run(1000)
    assert len(found.created) == 2
    assert found.caches["shop", "warm"].status == told
    change(found, refresh_request="take up the new ones")
    found.run(60)
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)
    assert found.condition("warm", FINISHED) == (True, "Succeeded")


def test_edit_begins_another_run() -> None:
    found = world()
    found.add_cache(cache(APP, completion=ONCE))
    found.run(60)
    change(found, edited=True, lists=(ImageList((APP, MOVING)),))
    found.run(60)
    assert found.condition("warm", FINISHED) == (True, "Succeeded")
    assert found.pulls_of(MOVING) == dict.fromkeys(found.nodes, 1)


def test_once_gives_up_after_the_last_attempt() -> None:
    found = world()
    found.add_cache(cache(APP, WRONG, completion=ONCE, attempt_limit=2))
    found.run(120)
    assert found.condition("warm", FINISHED) == (True, "PullsFailed")
    assert found.condition("warm") == (False, "PullsFailed")
    status = found.caches["shop", "warm"].status
    assert (status.succeeded, status.failed) == (2, 2)
    found.run(8000)
    assert len(found.created) == 2 + 2 * 2


def test_once_ends_where_every_pod_is_refused() -> None:
    found = world(4)
    found.refusal = "exceeded quota: small"
    found.add_cache(cache(APP, completion=ONCE, attempt_limit=2))
    found.run(200)
    assert found.condition("warm", FINISHED) == (True, "PullsFailed")
    assert found.caches["shop", "warm"].status.failed == 4


def test_node_that_cannot_take_it_does_not_keep_a_run_open() -> None:
    found = world(3)
    found.nodes["n2"] = replace(found.nodes["n2"], unschedulable=True)
    found.add_cache(cache(APP, completion=ONCE))
    found.run(SKIPPING_SECONDS - 5)
    assert found.condition("warm", FINISHED) == (False, "Running")
    found.run(10)
    assert found.condition("warm", FINISHED) == (True, "Succeeded")
    assert found.caches["shop", "warm"].status.skipped == 1
    found.nodes["n2"] = replace(found.nodes["n2"], unschedulable=False)
    found.run(60)
    assert len(found.created) == 2


def test_run_that_matches_no_node_is_not_a_success() -> None:
    found = world(1)
    lists = (ImageList((APP,), None, (("pool", "typo"),)),)
    found.add_cache(cache(completion=Completion(once=True, deadline_seconds=300), lists=lists))
    found.run(200)
    assert found.condition("warm", FINISHED) == (False, "Running")
    assert found.condition("warm") == (False, "NoNodes")
    found.run(200)
    assert found.condition("warm", FINISHED) == (True, "DeadlineExceeded")


def test_deadline_fails_the_rest_and_deletes_it_later() -> None:
    found = world(4, PullerSettings(cluster_pulls=1))
    slow = Completion(once=True, deadline_seconds=5, ttl_seconds=60)
    found.add_cache(cache(APP, MOVING, completion=slow))
    found.run(20)
    assert found.condition("warm", FINISHED) == (True, "DeadlineExceeded")
    status = found.caches["shop", "warm"].status
    assert status.succeeded + status.failed == 8
    assert status.failed
    assert {failure.reason for failure in status.failures} == {"Deadline"}
    created = len(found.created)
    found.run(35)
    assert ("shop", "warm") in found.caches
    assert len(found.created) == created
    assert not found.snapshot().puller_pods
    found.run(20)
    assert ("shop", "warm") not in found.caches


def test_suspended_run_neither_ends_nor_runs_out() -> None:
    found = world()
    found.add_cache(cache(APP, suspend=True, completion=Completion(once=True, deadline_seconds=60)))
    found.run(300)
    assert found.condition("warm", FINISHED) == (False, "Suspended")
    assert not found.created
    change(found, edited=True, suspend=False)
    found.run(40)
    assert found.condition("warm", FINISHED) == (True, "Succeeded")


def test_empty_list_has_nothing_to_wait_for() -> None:
    found = world()
    found.add_cache(cache(completion=ONCE))
    found.run(5)
    assert found.condition("warm", FINISHED) == (True, "NoImages")


def test_second_cache_does_not_take_back_the_first_ones_end() -> None:
    found = world()
    found.add_cache(cache(MOVING, completion=ONCE))
    found.run(60)
    first = found.caches["shop", "warm"].status
    found.add_cache(cache(MOVING, name="later", pull_policy=PullPolicy.ALWAYS))
    found.run(60)
    assert found.caches["shop", "warm"].status == first


@pytest.mark.parametrize(
    ("retention", "kept"),
    [(PodRetention.NEVER, 0), (PodRetention.ON_FAILURE, 1), (PodRetention.ALWAYS, 2)],
)
def test_pods_are_kept_to_look_at_and_block_no_refresh(retention: PodRetention, kept: int) -> None:
    found = world(1, PullerSettings(pod_retention_seconds=120.0))
    found.add_cache(cache(APP, WRONG, attempt_limit=1, pod_retention=retention))
    found.run(60)
    assert len(found.snapshot().puller_pods) == kept
    change(found, refresh_request="now")
    found.run(20)
    assert len(found.created) == 3
    assert len(found.snapshot().puller_pods) == (kept + 1 if kept else 0)
    found.restart_controller()
    found.run(130)
    assert not found.snapshot().puller_pods
    assert len(found.created) == 3
