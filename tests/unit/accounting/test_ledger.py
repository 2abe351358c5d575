"""What of the ledger survives a restart, and within which bounds."""

import pytest

from prewarm.accounting import Ledger, account, decode_ledger, encode_ledger
from prewarm.accounting.ledger import MAX_BYTES
from prewarm.history import History
from prewarm.model.outcomes import Outcome
from tests.support.starts import Scene, present


def restarted(ledger: Ledger, at: float) -> Ledger:
    restored, problem = decode_ledger(encode_ledger(ledger, at))
    assert problem == ""
    return restored


def test_a_judged_start_is_not_judged_again_after_a_restart() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), scene.snapshot(1000.0), (), History())
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    events = [present(pod, at=1041.0)]
    ledger, starts = account(ledger, scene.snapshot(1042.0), events, History())
    assert len(starts) == 1
    for saved_at in (1042.0, 1200.0):
        assert account(restarted(ledger, saved_at), scene.snapshot(1300.0), events, History())[1] == ()


def test_a_start_during_the_downtime_is_judged() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), scene.snapshot(1000.0), (), History())
    restored = restarted(ledger, 1001.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    _, starts = account(restored, scene.snapshot(1100.0), [present(pod, at=1041.0)], History())
    assert len(starts) == 1


def test_a_pod_that_was_pending_at_the_restart_is_judged_once_it_started() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), scene.snapshot(1000.0), (), History())
    scene.pod("web-1", "node-a", created=1010.0)
    ledger, _ = account(ledger, scene.snapshot(1020.0), (), History())
    restored = restarted(ledger, 1020.0)
    pod = scene.pod("web-1", "node-a", created=1010.0, started=1015.0)
    _, starts = account(restored, scene.snapshot(1100.0), [present(pod, at=1015.0)], History())
    assert len(starts) == 1


def test_a_used_pull_is_no_merit_again_though_its_credit_was_not_saved() -> None:
    """Saved credits are bounded; the node's record knows of the first use as well."""
    scene = Scene()
    scene.record("node-a", since=1000.0, used_at=1041.0)
    ledger, _ = account(Ledger(), scene.snapshot(1100.0), (), History())
    restored = restarted(ledger, 1100.0)
    pod = scene.pod("web-2", "node-a", created=1200.0, started=1201.0)
    _, starts = account(restored, scene.snapshot(1202.0), [present(pod, at=1201.0)], History())
    assert [start.outcome for start in starts] == [Outcome.HIT_PRESENT]


def test_the_first_use_during_the_downtime_is_a_merit() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), scene.snapshot(1000.0), (), History())
    scene.record("node-a", since=1000.0, used_at=1201.0)
    pod = scene.pod("web-2", "node-a", created=1200.0, started=1201.0)
    _, starts = account(restarted(ledger, 1100.0), scene.snapshot(1300.0), [present(pod, at=1201.0)], History())
    assert [start.outcome for start in starts] == [Outcome.HIT_PREWARMED]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b'{"version": 9, "since": 0, "saved_at": 0}'])
def test_garbage_gives_an_empty_ledger_and_says_why(data: bytes) -> None:
    ledger, problem = decode_ledger(data)
    assert ledger == Ledger()
    assert "accounting starts anew" in problem


def test_the_encoding_fits_a_config_map_however_much_is_open() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), scene.snapshot(1000.0), (), History())
    for number in range(12_000):
        scene.pod(f"web-{number}-{'x' * 80}", "node-a", created=1040.0)
    ledger, _ = account(ledger, scene.snapshot(1042.0), (), History())
    assert len(ledger.open) == 12_000
    assert len(encode_ledger(ledger, 1042.0)) <= MAX_BYTES
