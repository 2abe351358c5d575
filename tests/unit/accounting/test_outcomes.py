"""The verdict on each kind of container start."""

from collections.abc import Iterable, Sequence

import pytest
from msgspec.structs import replace

from prewarm.accounting import Ledger, account
from prewarm.history import History
from prewarm.model.nodes import FailedPull, NodeImages
from prewarm.model.outcomes import ContainerStart, Outcome, PlanInForce
from prewarm.model.workloads import KubeletEvent
from tests.support.starts import IMAGE, WEB, Scene, plan, present, pulled, pulling

SINCE = 1000.0


def judged(
    scene: Scene, events: Iterable[KubeletEvent] = (), *, at: float = 1100.0, plans: Sequence[PlanInForce] = ()
) -> tuple[ContainerStart, ...]:
    """Starts judged at a time by a ledger that has followed web since SINCE."""
    before, _ = account(Ledger(), Scene().snapshot(SINCE), (), History())
    return account(before, scene.snapshot(at), events, History(plans_in_force=tuple(plans)))[1]


def outcomes(starts: Iterable[ContainerStart]) -> list[Outcome]:
    return [start.outcome for start in starts]


def test_an_image_that_we_pulled_before_is_a_prewarmed_hit_with_lead_and_savings() -> None:
    scene = Scene()
    scene.record("node-a", since=1010.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    (start,) = judged(scene, [present(pod, at=1041.0)])
    assert (start.outcome, start.lead_seconds, start.saved_seconds) == (Outcome.HIT_PREWARMED, 30.0, 20.0)
    assert (start.workload, start.container, start.image, start.node) == (WEB, "app", IMAGE, "node-a")


def test_only_the_first_use_after_our_pull_is_prewarmed() -> None:
    scene = Scene()
    scene.record("node-a", since=1010.0)
    pods = [scene.pod(name, "node-a", created=1040.0, started=1041.0) for name in ("web-1", "web-2")]
    starts = judged(scene, [present(pod, at=1041.0) for pod in pods])
    assert sorted(outcomes(starts)) == [Outcome.HIT_PRESENT, Outcome.HIT_PREWARMED]


def test_a_finished_puller_is_evidence_before_the_record_is_written() -> None:
    scene = Scene()
    scene.puller("node-a", created=1005.0, done=1020.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    assert outcomes(judged(scene, [present(pod, at=1041.0)])) == [Outcome.HIT_PREWARMED]


def test_an_image_that_our_puller_found_there_is_no_merit_of_ours() -> None:
    scene = Scene()
    puller = scene.puller("node-a", created=1005.0, done=1006.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    events = [present(puller, at=1006.0, container="pull-0"), present(pod, at=1041.0)]
    assert outcomes(judged(scene, events)) == [Outcome.HIT_PRESENT]


def test_an_image_that_a_pod_pulled_while_our_puller_waited_is_no_merit_of_ours() -> None:
    scene = Scene()
    puller = scene.puller("node-a", created=1005.0, done=1020.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    events = [
        pulling(puller, at=1006.0, container="pull-0"),
        pulled(puller, "15ms", "13s", at=1019.0, size=250_000_000, container="pull-0"),
        present(pod, at=1041.0),
    ]
    assert outcomes(judged(scene, events)) == [Outcome.HIT_PRESENT]


def test_what_the_kubelet_said_of_a_puller_outlives_the_puller() -> None:
    scene = Scene()
    puller = scene.puller("node-a", created=1005.0, done=1006.0)
    ledger, _ = account(Ledger(), Scene().snapshot(SINCE), (), History())
    ledger, _ = account(ledger, scene.snapshot(1007.0), [present(puller, at=1006.0, container="pull-0")], History())
    del scene.pods[puller.key]
    scene.record("node-a", since=1006.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    _, starts = account(ledger, scene.snapshot(1042.0), [present(pod, at=1041.0)], History())
    assert outcomes(starts) == [Outcome.HIT_PRESENT]


def test_a_pull_is_over_when_the_kubelet_says_so_though_its_container_started_seconds_later() -> None:
    scene = Scene()
    puller = scene.puller("node-a", created=1005.0, done=1024.0)
    said = pulled(puller, "14s", "14s", at=1020.0, container="pull-0")
    ledger, _ = account(Ledger(), Scene().snapshot(SINCE), (), History())
    ledger, _ = account(ledger, scene.snapshot(1024.0), [said], History())
    del scene.pods[puller.key]
    scene.record("node-a", since=1024.0)
    pods = [scene.pod(name, "node-a", created=1021.0, started=1022.0) for name in ("web-1", "web-2")]
    _, starts = account(ledger, scene.snapshot(1025.0), [present(pod, at=1022.0) for pod in pods], History())
    assert outcomes(starts) == [Outcome.HIT_PREWARMED, Outcome.HIT_PRESENT]


def test_a_start_beside_a_pull_of_ours_of_whose_end_nothing_is_heard_is_present_after_a_while() -> None:
    scene = Scene()
    scene.puller("node-a", created=1005.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    assert judged(scene, [present(pod, at=1041.0)], at=1042.0) == ()
    assert outcomes(judged(scene, [present(pod, at=1041.0)], at=1060.0)) == [Outcome.HIT_PRESENT]


def test_an_image_that_was_there_anyway_is_present() -> None:
    scene = Scene()
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    assert outcomes(judged(scene, [present(pod, at=1041.0)])) == [Outcome.HIT_PRESENT]


def test_a_check_of_credentials_is_a_hit() -> None:
    scene = Scene()
    scene.record("node-a", since=1010.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    assert outcomes(judged(scene, [pulled(pod, "14ms", "5.014s", at=1041.0)])) == [Outcome.HIT_PREWARMED]


def test_a_short_pull_of_a_small_image_is_a_miss() -> None:
    scene = Scene()
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    events = [pulled(pod, "98ms", "98ms", at=1041.0, size=1_000_000)]
    assert outcomes(judged(scene, events)) == [Outcome.MISS_UNPREDICTED]


def joined(created: float, waited: str, started: float) -> Sequence[ContainerStart]:
    """Verdicts on a pod that asked, a second after its creation, for what our pull brought at 1055."""
    scene = Scene()
    puller = scene.puller("node-a", created=1030.0, done=1055.0)
    pod = scene.pod("web-1", "node-a", created=created, started=started)
    events = [
        pulling(puller, at=1031.0, container="pull-0"),
        pulled(puller, "24s", "24s", at=1055.0, container="pull-0"),
        pulling(pod, at=created + 1.0),
        pulled(pod, "15ms", waited, at=1055.0),
    ]
    return judged(scene, events)


def test_a_start_that_joined_our_pull_is_late() -> None:
    (start,) = joined(1040.0, "14s", 1056.0)
    assert (start.outcome, start.pull_seconds) == (Outcome.LATE, 14.0)


def test_a_start_that_asked_in_the_second_in_which_our_pull_ended_is_a_hit_if_it_did_not_wait() -> None:
    assert outcomes(joined(1053.0, "300ms", 1055.0)) == [Outcome.HIT_PREWARMED]


def test_a_start_that_joined_someone_elses_pull_is_a_miss() -> None:
    scene = Scene()
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1056.0)
    events = [pulling(pod, at=1041.0), pulled(pod, "15ms", "14s", at=1055.0)]
    assert outcomes(judged(scene, events)) == [Outcome.MISS_UNPREDICTED]


def test_a_pull_of_ours_that_began_after_the_kubelets_own_is_no_help() -> None:
    scene = Scene()
    scene.puller("node-a", created=1050.0, done=1062.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1061.0)
    events = [pulling(pod, at=1041.0), pulled(pod, "20s", "20s", at=1061.0)]
    assert outcomes(judged(scene, events)) == [Outcome.MISS_UNPREDICTED]


@pytest.mark.parametrize(
    ("in_force", "expected"),
    [
        (plan("node-b", since=1020.0), Outcome.MISS_UNPREDICTED),
        (plan("node-a", since=1020.0), Outcome.MISS_SKIPPED),
        (plan("node-a", since=1041.0), Outcome.MISS_UNPREDICTED),
        (plan("node-b", since=1020.0, skipped=(("node-a", "NodeCordoned"),)), Outcome.MISS_SKIPPED),
        (plan("node-b", since=1020.0, skipped=(("node-a", "Unlikely"),)), Outcome.MISS_UNPREDICTED),
        (plan("node-b", since=1020.0, skipped=(("node-a", "TooLate"),)), Outcome.MISS_UNPREDICTED),
        (plan("node-b", since=1020.0, skipped=(("node-a", "Unsettled"),)), Outcome.MISS_UNPREDICTED),
        (plan("node-b", since=1020.0, skipped=(("node-a", "BeyondWaste"),)), Outcome.MISS_UNPREDICTABLE),
        (plan(since=1020.0, unpredictable=True), Outcome.MISS_UNPREDICTABLE),
        (replace(plan("node-a", since=1020.0), until=1030.0), Outcome.MISS_UNPREDICTED),
    ],
)
def test_a_miss_is_attributed_to_the_plan_in_force(in_force: PlanInForce, expected: Outcome) -> None:
    scene = Scene()
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1061.0)
    events = [pulling(pod, at=1041.0), pulled(pod, "20s", "20s", at=1061.0)]
    assert outcomes(judged(scene, events, plans=[in_force])) == [expected]


def test_a_miss_after_our_failed_pulls_is_failed() -> None:
    scene = Scene()
    failure = FailedPull(IMAGE, "default/prewarm-web", "cache-uid", "ErrImagePull", "not found", 5, 1030.0)
    scene.records["node-a"] = NodeImages("node-a", "uid-node-a", "boot", failures=(failure,))
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1061.0)
    events = [pulled(pod, "20s", "20s", at=1061.0)]
    assert outcomes(judged(scene, events, plans=[plan("node-a", since=1020.0)])) == [Outcome.MISS_FAILED]


def test_without_events_a_quick_start_after_our_pull_is_a_hit() -> None:
    scene = Scene()
    scene.record("node-a", since=1010.0)
    scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    assert judged(scene, at=1045.0) == ()
    assert outcomes(judged(scene, at=1060.0)) == [Outcome.HIT_PREWARMED]


def test_without_any_evidence_a_start_is_unknown_after_a_grace_time() -> None:
    scene = Scene()
    scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    assert judged(scene, at=1100.0) == ()
    assert outcomes(judged(scene, at=1200.0)) == [Outcome.UNKNOWN]


def test_a_started_pod_that_vanished_without_evidence_is_unknown() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), Scene().snapshot(SINCE), (), History())
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    ledger, starts = account(ledger, scene.snapshot(1042.0), (), History())
    assert starts == ()
    del scene.pods[pod.key]
    ledger, starts = account(ledger, scene.snapshot(1044.0), (), History())
    assert outcomes(starts) == [Outcome.UNKNOWN]
    assert account(ledger, scene.snapshot(1300.0), (), History())[1] == ()


def test_a_pod_that_never_started_is_not_judged() -> None:
    scene = Scene()
    pod = scene.pod("web-1", "node-a", created=1040.0)
    ledger, _ = account(Ledger(), Scene().snapshot(SINCE), (), History())
    ledger, starts = account(ledger, scene.snapshot(1100.0), [pulling(pod, at=1041.0)], History())
    assert starts == ()
    del scene.pods[pod.key]
    assert account(ledger, scene.snapshot(1400.0), (), History())[1] == ()


def test_pods_from_before_the_opt_in_are_not_judged() -> None:
    scene = Scene(covered=False)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    ledger, _ = account(Ledger(), Scene(covered=False).snapshot(SINCE), (), History())
    ledger, starts = account(ledger, scene.snapshot(1050.0), [present(pod, at=1041.0)], History())
    assert starts == ()
    scene.covered = True
    after = scene.pod("web-2", "node-b", created=1055.0, started=1056.0)
    _, starts = account(ledger, scene.snapshot(1060.0), [present(after, at=1056.0)], History())
    assert [start.pod_uid for start in starts] == [after.uid]


def test_an_image_changed_in_place_is_a_start_of_its_own() -> None:
    scene = Scene()
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    ledger, _ = account(Ledger(), Scene().snapshot(SINCE), (), History())
    ledger, first = account(ledger, scene.snapshot(1042.0), [present(pod, at=1041.0)], History())
    patched = scene.pod("web-1", "node-a", created=1040.0, started=1041.0, image="registry.test/web:v3")
    ledger, nothing = account(ledger, scene.snapshot(1070.0), (), History())
    events = [pulled(patched, "20s", "20s", at=1095.0, image="registry.test/web:v3")]
    scene.pod("web-1", "node-a", created=1040.0, started=1095.0, image="registry.test/web:v3")
    ledger, second = account(ledger, scene.snapshot(1096.0), events, History())
    assert (len(first), nothing, [start.image for start in second]) == (1, (), ["registry.test/web:v3"])


def test_our_own_pullers_are_never_judged() -> None:
    scene = Scene()
    puller = scene.puller("node-a", created=1005.0, done=1020.0)
    assert judged(scene, [pulled(puller, "14s", "14s", at=1020.0, container="pull-0")], at=1400.0) == ()
