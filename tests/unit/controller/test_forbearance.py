"""What can wait does so for a while only."""

from prewarm.controller.forbearance import Forbearance


def test_nobody_waits_for_nothing() -> None:
    assert not Forbearance(1.0).waits(False, 0.0)


def test_others_wait_as_long_as_something_is_awaited() -> None:
    forbearance = Forbearance(1.0)
    assert forbearance.waits(True, 0.0)
    assert forbearance.waits(True, 0.9)
    assert not forbearance.waits(False, 0.95)


def test_others_wait_no_longer_than_they_may_however_much_comes() -> None:
    forbearance = Forbearance(1.0)
    assert [forbearance.waits(True, at) for at in (5.0, 5.5, 6.0, 60.0)] == [True, True, False, False]


def test_others_wait_again_for_what_is_awaited_after_a_break() -> None:
    forbearance = Forbearance(1.0)
    forbearance.waits(True, 5.0)
    assert not forbearance.waits(True, 7.0)
    forbearance.waits(False, 8.0)
    assert forbearance.waits(True, 9.0)


def test_what_began_at_the_zero_of_the_clock_ends_like_any_other() -> None:
    forbearance = Forbearance(1.0)
    assert forbearance.waits(True, 0.0)
    assert not forbearance.waits(True, 1.0)
