"""What the recorded cases teach, each as a property of the emulated kubelet.

The numbers are those of the findings about the traces: 1 to 5 one sync does everything, 6 to 10 evidence in status,
11 to 17 failures, 18 an old runtime, 19 credentials, 20 to 23 counters, 24 to 26 events, 27 to 31 the queue of pulls,
32 node status, 33 to 35 garbage collection.
"""

from itertools import pairwise

from prewarm.simulation.messages import QPS_EXCEEDED
from prewarm.simulation.outputs import PodStatusChanged, PullFinished
from prewarm.simulation.pulls import EnsureRequest
from tests.traces.account import Account
from tests.traces.matching import nearest

NEW, OLD = "containerd-2.4.2", "containerd-1.6.20"


def account(case: str, runtime: str = NEW) -> Account:
    return nearest(f"{runtime}/{case}").emulated


def statuses(found: Account, pod: str = "puller") -> list[PodStatusChanged]:
    return [o for o in found.outputs if isinstance(o, PodStatusChanged) and o.name == pod]


def last_status(found: Account, pod: str = "puller") -> PodStatusChanged:
    return statuses(found, pod)[-1]


def messages(found: Account, pod: str = "puller") -> list[str]:
    return [event.message for key, events in found.events.items() if key.endswith(f"/{pod}") for event in events]


def pull_of(found: Account, pod: str) -> PullFinished:
    (pull,) = [pull for pull in found.pulls if pull.pod == pod]
    return pull


def test_01_images_of_one_pod_are_pulled_one_after_another_whatever_the_slots() -> None:
    for case in ("volume-5", "volume-5-parallel", "container-5-parallel"):
        pulls = account(case).pulls
        assert len(pulls) == 5
        assert all(before.at <= after.queued_at for before, after in pairwise(pulls))


def test_02_status_says_nothing_until_all_images_were_tried() -> None:
    found = account("container-serial-5")
    last_pull = max(pull.at for pull in found.pulls if pull.pod == "puller")
    named = [s for s in statuses(found) if any(c.image_id for c in s.status.containers)]
    assert min(s.at for s in named) >= last_pull
    assert sum(message.startswith("Successfully pulled") for message in messages(found)) == 5


def test_03_deleting_the_pod_stops_nothing() -> None:
    for case, images in (("volume-5-deleted-while-pulling", 5), ("container-5-deleted-while-pulling", 5)):
        found = account(case)
        assert len([pull for pull in found.pulls if not pull.error]) == images
        (gone,) = found.deleted.values()
        assert gone > max(pull.at for pull in found.pulls) > 4.0 + 2


def test_04_a_kubelet_restart_loses_the_pull_and_what_it_downloaded() -> None:
    (pull,) = account("container-1-kubelet-restart-while-pulling").pulls
    assert pull.started_at > 6.03
    assert pull.at - pull.started_at > 10
    assert pull.downloaded_bytes == pull.size_bytes


def test_05_a_deadline_interrupts_no_pull() -> None:
    for case in ("volume-2-deadline-while-pulling", "container-2-deadline-while-pulling"):
        found = account(case)
        status = last_status(found).status
        assert (status.phase, status.reason) == ("Failed", "DeadlineExceeded")
        assert [c.exit_code for c in status.containers] == [0, 0]
        assert len(found.pulls) == 2


def test_06_the_container_form_names_the_digest_of_each_image() -> None:
    found = account("container-5-names")
    ids = [c.image_id for c in last_status(found).status.containers]
    assert all("@sha256:" in image for image in ids)
    assert ids[3] == ids[4]
    shown = [c.image for c in last_status(found).status.containers]
    assert shown[0].startswith("sha256:")
    assert shown[3] == shown[4]


def test_07_the_volume_form_names_the_helper() -> None:
    assert {c.image_id.partition("@")[0] for c in last_status(account("volume-5")).status.containers} == {
        "helper.test/helper"
    }


def test_08_a_container_that_cannot_start_proves_its_image() -> None:
    status = last_status(account("container-2-start-error")).status
    assert {(c.exit_code, c.reason, bool(c.image_id)) for c in status.containers} == {(128, "StartError", True)}


def test_09_a_named_user_without_run_as_user_stays_waiting_after_its_pull() -> None:
    found = account("container-3-users-no-run-as-user")
    assert len(found.pulls) == 3
    waiting = {c.reason for s in statuses(found) for c in s.status.containers}
    assert "CreateContainerConfigError" in waiting
    assert {s.status.phase for s in statuses(found)} == {"Pending", "Failed"}


def test_10_an_unmounted_image_that_fails_fails_nothing() -> None:
    assert last_status(account("unmounted-3-wrong-tag")).status.phase == "Succeeded"


def test_11_a_bad_image_keeps_the_pod_pending_whatever_the_restart_policy() -> None:
    for case in ("volume-5-wrong-tag-onfailure", "container-5-wrong-tag-onfailure"):
        found = account(case)
        deleted = next(t for t in found.deleted.values())
        assert {s.status.phase for s in statuses(found) if s.at < deleted - 1.5} == {"Pending"}


def test_12_the_reason_is_gone_from_the_final_status() -> None:
    (_, bad) = last_status(account("container-2-deadline")).status.containers
    assert (bad.reason, bad.exit_code, bad.image_id) == ("ContainerStatusUnknown", 137, "")


def test_13_status_is_one_sync_behind_the_events() -> None:
    found = account("volume-5-wrong-tag")
    retried = found.pulls[5].at
    assert found.pulls[5].error
    shown = [s.at for s in statuses(found) if s.at > retried and s.status.containers[2].reason == "ErrImagePull"]
    assert min(shown) - retried > 9


def test_14_back_off_doubles_and_is_looked_at_when_the_pod_is_synced() -> None:
    found = account("volume-5-wrong-tag")
    tries = [pull.at for pull in found.pulls if pull.image.endswith(":v9")]
    assert len(tries) == 4
    for delay, (before, after) in zip((10, 20, 40), pairwise(tries), strict=True):
        assert delay <= after - before <= delay + 16


def test_16_a_silent_registry_blocks_every_pull_of_the_node() -> None:
    for case, seconds in (("volume-silent-registry", 30), ("container-silent-registry", 60)):
        found = account(case)
        silent, other = pull_of(found, "puller"), pull_of(found, "app")
        assert silent.at - silent.started_at == seconds
        assert other.started_at == silent.at


def test_17_policy_never_tells_without_a_pull() -> None:
    found = account("volume-2-policy-never")
    assert [pull.pod for pull in found.pulls] == ["first"]
    reasons = {event.reason for key, events in found.events.items() if key.endswith("/puller") for event in events}
    assert "ErrImageNeverPull" in reasons
    assert "Pulling" not in reasons


def test_18_an_old_runtime_cannot_mount_what_it_pulled() -> None:
    found = account("volume-5-wrong-tag", OLD)
    before = [s for s in statuses(found) if not s.status.containers[0].exit_code][-1]
    waiting = {c.name: c.reason for s in statuses(found) for c in s.status.containers if c.reason.startswith("Create")}
    assert waiting["image-1"] == "CreateContainerError"
    assert before.status.containers[2].reason != "CreateContainerError"
    assert len([pull for pull in found.pulls if not pull.error]) == 4


def test_19_credentials_decide_who_may_use_a_present_image() -> None:
    for runtime in (NEW, OLD):
        found = account("container-credentials", runtime)
        pulled = {pull.pod: pull for pull in found.pulls}
        assert pulled.keys() == {"puller", "wrong-secret", "no-secret", "always"}
        assert pulled["wrong-secret"].error
        assert pulled["no-secret"].error
        assert pulled["always"].downloaded_bytes == 0
        assert pulled["always"].at - pulled["always"].started_at < 0.1


def test_21_back_off_counts_as_a_request_that_needs_a_pull() -> None:
    match = nearest(f"{NEW}/volume-2-unreachable")
    missed = match.kubelet.images.requests[EnsureRequest("ifnotpresent", "false", "true")]
    assert (missed, match.kubelet.images.pulls) == (5, 1)


def test_22_the_volume_form_asks_for_its_images_again_at_every_sync() -> None:
    requests = nearest(f"{NEW}/volume-5").kubelet.images.requests
    assert requests[EnsureRequest("ifnotpresent", "true", "false")] == 10


def test_23_the_size_is_config_manifest_and_compressed_layers() -> None:
    found = account("container-8")
    assert len(found.pulls) == 8
    for pull in found.pulls:
        assert pull.downloaded_bytes == pull.size_bytes
    reported = [m for m in messages(found) if m.startswith("Successfully pulled")]
    sizes = [f"Image size: {pull.size_bytes} bytes." for pull in found.pulls]
    assert all(message.endswith(size) for message, size in zip(reported, sizes, strict=False))


def test_24_a_pod_has_25_normal_events() -> None:
    found = account("container-8")
    normal = [event for events in found.events.values() for event in events if event.type == "Normal"]
    assert len(normal) == 25
    assert sum(event.message.startswith("Successfully pulled") for event in normal) == 6
    assert len(found.pulls) == 8
    volumes = [m for m in messages(account("volume-8")) if m.startswith("Successfully pulled")]
    assert len(volumes) == 8


def test_25_back_off_uses_up_the_events() -> None:
    for case in ("volume-5-wrong-tag", "container-5-wrong-tag"):
        found = account(case)
        mended = [pull for pull in found.pulls if pull.image.endswith(":v9") and not pull.error]
        assert len(mended) == 1
        assert not any(':v9" in ' in message for message in messages(found))


def test_27_an_ordinary_pod_waits_for_the_image_in_progress() -> None:
    for case in ("volume-serial-1-big", "container-serial-1-big"):
        app = pull_of(account(case), "app")
        assert app.started_at - app.queued_at > 7
        assert app.at - app.started_at < 0.2
        parallel = pull_of(account(f"{case}-parallel"), "app")
        assert parallel.at - parallel.queued_at < 0.3


def test_28_behind_many_images_of_one_pod_it_waits_for_one_only() -> None:
    for case in ("volume-serial-5", "container-serial-5"):
        app = pull_of(account(case), "app")
        assert 0 < app.started_at - app.queued_at < 2.5


def test_29_queued_pulls_go_first() -> None:
    found = account("volume-6-pullers-then-real-pod")
    app = pull_of(found, "app")
    assert app.started_at >= max(pull.at for pull in found.pulls if pull.pod != "app")
    order = sorted(account("volume-14-pullers-at-once").pulls, key=lambda pull: pull.queued_at)
    assert [pull.at for pull in order] == sorted(pull.at for pull in order)


def test_30_a_pod_with_the_image_that_is_being_pulled_waits_for_the_rest() -> None:
    found = account("volume-same-image-while-pulling")
    puller, app = pull_of(found, "puller"), pull_of(found, "app")
    assert app.downloaded_bytes == 0
    assert app.started_at == puller.at
    assert app.at - app.started_at < 0.1
    assert nearest(f"{NEW}/volume-same-image-while-pulling").kubelet.images.pulls == 2


def test_31_what_exceeds_the_pull_rate_fails_at_once() -> None:
    found = account("volume-24-tiny")
    first = [pull for pull in found.pulls if pull.at < 5]
    assert sum(pull.error == QPS_EXCEEDED for pull in first) == 14
    assert len(first) == 24
    failed = {(pull.pod, pull.image): pull.at for pull in first if pull.error}
    retries = [pull for pull in found.pulls if pull.at >= 5]
    assert {(pull.pod, pull.image) for pull in retries} == failed.keys()
    assert all(pull.at - failed[pull.pod, pull.image] >= 10 for pull in retries)


def test_32_node_status_lists_an_image_up_to_forty_seconds_late() -> None:
    found = account("container-1")
    (pull,) = found.pulls
    shown = min(t for t, names, _ in found.images if any(pull.image in name for name in names))
    assert 0 < shown - pull.at <= 40


def test_33_finished_pods_protect_their_images_while_their_objects_are_there() -> None:
    collected = removed_before_pressure()
    assert not {"volume-kept:v1", "container-kept:v1", "start-error-kept:v1", "running:v1"} & set(collected)


def test_34_never_used_images_go_first_then_those_used_longest_ago() -> None:
    collected = removed_before_pressure()
    assert set(collected[:3]) == {"volume-deleted:v1", "unmounted-kept:v1", "container-deleted:v1"}
    assert set(collected[3:]) == {"volume-late:v1", "container-late:v1"}


def test_35_disk_pressure_takes_every_unused_image_and_then_a_pod() -> None:
    found = account("image-gc")
    under_pressure = {name for image in found.removed for name in image.names if image.at > 570 and ":v1" in name}
    short = {name.rpartition("/")[2] for name in under_pressure}
    assert {"volume-kept:v1", "container-kept:v1", "start-error-kept:v1", "helper:v1", "running:v1"} == short
    running = last_status(found, "running").status
    assert (running.phase, running.reason) == ("Failed", "Evicted")


def removed_before_pressure() -> list[str]:
    removed = [image for image in account("image-gc").removed if image.at < 570]
    return [next(name for name in image.names if ":v1" in name).rpartition("/")[2] for image in removed]
