"""How long a pull that ended went untold."""

from e2e.bench.pulling import Progress


def test_time_in_which_nothing_ended_is_no_silence() -> None:
    progress = Progress([0.5, 1.0, 6.5, 7.5], 7.5, 0.0)
    assert progress.longest_gap == 5.5
    assert progress.gap_begins == 1.0
    assert progress.longest_untold([5.5, 6.0, 7.0]) == 1.0


def test_the_first_that_ended_counts() -> None:
    progress = Progress([0.5, 6.0], 6.0, 0.0)
    assert progress.longest_untold([2.0, 5.5]) == 4.0


def test_what_ended_after_the_last_status_is_not_counted() -> None:
    assert Progress([0.5], 0.5, 0.0).longest_untold([3.0]) == 0.0
