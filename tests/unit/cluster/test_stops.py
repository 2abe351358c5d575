"""How long pods took to stop, as snapshots tell: of each workload the last ones, and only those that are a measure."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.cluster.stops import GOING_SECONDS, KEPT, LONGEST_STOP
from prewarm.cluster.store import Store
from prewarm.model.pods import ContainerPhase, ContainerStatus, OwnerReference, Pod, PodPhase
from prewarm.model.workloads import WorkloadKey
from tests.support.clusters import WEB, deployment, replica_set, template

KEY = (WEB.namespace, WEB.name)
OWNER = deployment(template("web:v1"))
SET = replica_set(OWNER, OWNER.template, 3)
TOLD = 1000.0
GRACE = 60.0


def status(phase: ContainerPhase = ContainerPhase.RUNNING, **fields: Any) -> ContainerStatus:
    return ContainerStatus("c0", phase, started_at=500.0, **fields)


def ended(at: float) -> ContainerStatus:
    return status(ContainerPhase.TERMINATED, finished_at=at)


def pod(number: int = 0, *, owner: OwnerReference | None = None, **fields: Any) -> Pod:
    by = owner or OwnerReference("ReplicaSet", SET.key.name, SET.uid, "apps/v1")
    found = Pod("shop", f"web-{number}", f"uid-{number}", "n1", owner=by, phase=PodPhase.RUNNING)
    return replace(found, **{"containers": (status(),), **fields})


def store() -> Store:
    made = Store()
    made.deployments.put(KEY, OWNER)
    made.replica_sets.put((SET.key.namespace, SET.key.name), SET)
    return made


def stop(made: Store, running: Pod, took: float, *, told: float = TOLD, **last: Any) -> None:
    """A pod is told to stop, its containers end, its object goes."""
    made.pods.put(running.key, running)
    going = replace(running, deleted_at=told + GRACE, stopping_since=told)
    made.pods.put(running.key, going)
    end = {"containers": (ended(told + took),), "phase": PodPhase.SUCCEEDED, **last}
    made.pods.put(running.key, replace(going, **end))
    made.pods.remove(running.key)


def test_a_pod_counts_from_when_it_was_told_until_its_containers_ended_however_late_the_news() -> None:
    made = store()
    stop(made, pod(), 15.0)
    assert made.snapshot(TOLD + 999).stops == {WEB: (15.0 + GOING_SECONDS,)}


def test_pods_of_all_revisions_count_the_last_ones_only() -> None:
    made = store()
    for number in range(KEPT + 5):
        stop(made, pod(number), 10.0 + number, told=TOLD + 100 * number)
    assert made.snapshot(9999.0).stops == {WEB: tuple(10.5 + number for number in range(5, KEPT + 5))}


@pytest.mark.parametrize(
    "last",
    [
        {"containers": (status(),), "phase": PodPhase.RUNNING},
        {"containers": (), "phase": PodPhase.PENDING},
        {"containers": (ContainerStatus("c0", ContainerPhase.TERMINATED),)},
        {"containers": (ended(TOLD - 60),)},
        {"containers": (ended(TOLD + 15), replace(status(), name="c1"))},
        {"stopping_since": None, "deleted_at": None},
    ],
    ids=["deleted by force", "never bound", "never ran", "had failed before", "one still runs", "was not told"],
)
def test_what_did_not_stop_in_its_own_time_is_no_measure(last: dict[str, Any]) -> None:
    made = store()
    stop(made, pod(), 15.0, **last)
    assert made.snapshot(TOLD + 15.5).stops == {}


def test_what_takes_longer_than_any_container_may_is_left_out() -> None:
    made = store()
    stop(made, pod(), LONGEST_STOP + 1)
    assert made.snapshot(TOLD + LONGEST_STOP + 1.5).stops == {}


def test_pods_that_end_in_the_second_in_which_they_were_told_take_next_to_no_time() -> None:
    made = store()
    stop(made, pod(), 0.0)
    assert made.snapshot(TOLD + 0.2).stops == {WEB: (GOING_SECONDS,)}


def test_what_is_known_of_a_workload_goes_with_it() -> None:
    made = store()
    stop(made, pod(), 15.0)
    before = made.snapshot(TOLD + 15.5)
    stop(made, pod(1), 15.0)
    made.deployments.remove(KEY)
    assert made.snapshot(TOLD + 16).stops == {}
    assert before.stops == {WEB: (15.5,)}
    stop(made, pod(2), 15.0)
    assert made.snapshot(TOLD + 16).stops == {}


def test_pods_that_a_workload_controls_itself_count_for_it_by_its_kind() -> None:
    key = WorkloadKey("AdvancedStatefulSet", "shop", "web")
    made = Store()
    made.advanced_stateful_sets.put(KEY, replace(OWNER, key=key))
    by = OwnerReference("StatefulSet", "web", "uid-web", "apps.kruise.io/v1beta1")
    stop(made, pod(1, owner=OwnerReference("ImageCache", "web", "uid-cache", "prewarm.dev/v1alpha1")), 15.0)
    stop(made, pod(owner=by), 15.0)
    assert made.snapshot(TOLD + 15.5).stops == {key: (15.5,)}
