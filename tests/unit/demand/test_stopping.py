"""When a pod that was told to stop is expected to be gone."""

import pytest
from msgspec.structs import replace

from prewarm.demand.stopping import expected_end
from prewarm.model.pods import ContainerPhase, ContainerStatus, Pod

TOLD, GRACE = 1000.0, 30.0


def stopping(*phases: ContainerPhase, since: float | None = TOLD) -> Pod:
    containers = tuple(ContainerStatus(f"c{index}", phase) for index, phase in enumerate(phases))
    return Pod("shop", "a", "u1", deleted_at=TOLD + GRACE, stopping_since=since, containers=containers)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        (TOLD, TOLD + 1),
        (TOLD + 0.5, TOLD + 1),
        (TOLD + 4, TOLD + 7),
        (TOLD + 20, TOLD + GRACE),
        (TOLD + GRACE + 5, TOLD + GRACE + 10),
    ],
    ids=[
        "just told",
        "half a second ago",
        "slower than most",
        "at the latest with its grace period",
        "overdue, since its node does not answer",
    ],
)
def test_a_pod_ends_soon_after_it_was_told(now: float, end: float) -> None:
    assert expected_end(stopping(ContainerPhase.RUNNING), now) == end


@pytest.mark.parametrize(
    ("now", "end"),
    [(TOLD, TOLD + 15), (TOLD + 14.9, TOLD + 15), (TOLD + 15.2, TOLD + 16.2), (TOLD + 18, TOLD + 21)],
    ids=["just told", "nearly there", "hardly late", "three seconds late"],
)
def test_a_pod_ends_when_others_of_its_workload_do(now: float, end: float) -> None:
    assert expected_end(stopping(ContainerPhase.RUNNING), now, 15.0) == pytest.approx(end)


def test_whatever_others_took_a_pod_ends_with_its_grace_period() -> None:
    assert expected_end(stopping(ContainerPhase.RUNNING), TOLD + 1, 100.0) == TOLD + GRACE


def test_a_pod_of_which_nobody_knows_when_it_was_told_may_take_its_grace_period() -> None:
    assert expected_end(stopping(ContainerPhase.RUNNING, since=None), TOLD) == TOLD + GRACE


def test_a_pod_none_of_whose_containers_runs_is_about_to_go() -> None:
    assert expected_end(stopping(ContainerPhase.TERMINATED, ContainerPhase.TERMINATED), TOLD + 0.1) == TOLD + 0.1
    assert expected_end(stopping(ContainerPhase.TERMINATED, ContainerPhase.RUNNING), TOLD + 0.1) > TOLD + 0.1
    begun = replace(stopping(), containers=(ContainerStatus("init", ContainerPhase.RUNNING, init=True),))
    assert expected_end(begun, TOLD + 0.1) > TOLD + 0.1
