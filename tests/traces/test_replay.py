"""The emulated kubelet against every recorded case of a real one."""

import pytest

from tests.traces.account import Account, normal
from tests.traces.matching import ORDER_IS_CHANCE, TIME_TOLERANCE, TIME_TOLERANCE_SHARE, nearest
from tests.traces.recorded import CASES, trace

RACES = "containerd-2.4.2/volume-24-tiny"


@pytest.mark.parametrize("case", [case for case in CASES if case != RACES])
def test_the_emulated_kubelet_does_what_the_real_one_did(case: str) -> None:
    """Events (type, reason, message, object, count), pod statuses and counters, in order; times within tolerance."""
    assert nearest(case).differences == []


@pytest.mark.parametrize("case", sorted(ORDER_IS_CHANCE))
def test_pulls_of_racing_pods_end_when_the_real_ones_did(case: str) -> None:
    """Whichever pod comes first, the queue moves at the same pace."""
    match = nearest(case)
    recorded, emulated = pull_times(match.recorded), pull_times(match.emulated)
    assert len(emulated) == len(recorded)
    for one, other in zip(recorded, emulated, strict=True):
        # One retry of 10 s with up to 5 s of jitter is in the race for pulls.
        jitter = 6.0 if case == RACES else 0.0
        assert abs(one - other) <= TIME_TOLERANCE + TIME_TOLERANCE_SHARE * one + jitter


def pull_times(account: Account) -> list[float]:
    events = (event for events in account.events.values() for event in events)
    return sorted(event.t for event in events if event.message.startswith("Successfully pulled"))


@pytest.mark.parametrize("case", CASES)
def test_every_pod_ends_when_the_real_one_ended(case: str) -> None:
    match = nearest(case)
    graceful = {key for _, key, grace, _ in trace(case).deletions() if grace > 0}
    for key in graceful:
        recorded, emulated = match.recorded.deleted[key], match.emulated.deleted[key]
        assert abs(recorded - emulated) <= TIME_TOLERANCE + TIME_TOLERANCE_SHARE * recorded, key


@pytest.mark.parametrize("case", [case for case in CASES if case != RACES])
def test_node_status_lists_the_same_images(case: str) -> None:
    """Names, sizes and which images; the largest first. Equal sizes have no order."""
    match = nearest(case)
    assert listed(match.emulated) == listed(match.recorded)


def listed(account: Account) -> list[tuple[tuple[str, ...], int]]:
    if not account.images:
        return []
    _, names, sizes = account.images[-1]
    assert sizes == sorted(sizes, reverse=True)
    return sorted(zip(names, sizes, strict=True))


def test_all_recorded_cases_are_replayed() -> None:
    assert len(CASES) == 112


def test_only_what_differs_from_run_to_run_is_left_out_of_messages() -> None:
    assert normal('Failed to pull image "a": b (1.5s)') == 'Failed to pull image "a": b (1.5s)'
    assert normal('Successfully pulled image "a" in 1s (2.5s including waiting). Image size: 3 bytes.') == (
        'Successfully pulled image "a" in D (D including waiting). Image size: 3 bytes.'
    )
