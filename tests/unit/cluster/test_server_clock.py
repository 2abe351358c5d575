from email.utils import formatdate

import pytest

from prewarm.cluster.server_clock import ServerClock

START = 1_800_000_000.0


class World:
    """A server, our clock that may be wrong, and a steady one; seconds."""

    def __init__(self, wrong_by: float = 0.0) -> None:
        self.passed = 0.0
        self.wrong_by = wrong_by
        self.server = START
        self.clock = ServerClock(lambda: START + self.passed + self.wrong_by, lambda: 50.0 + self.passed)

    def answer(self, late: float = 0.0) -> None:
        self.clock.heard(formatdate(int(self.server + self.passed - late), usegmt=True))

    def after(self, seconds: float) -> None:
        self.passed += seconds


@pytest.mark.parametrize("wrong_by", [-86400.0, -10.0, 0.0, 0.7, 3600.0])
def test_it_is_what_the_server_says(wrong_by: float) -> None:
    world = World(wrong_by)
    assert world.clock.now() == START + wrong_by
    world.answer()
    assert abs(world.clock.now() - START) <= 1.0
    world.after(30.0)
    assert abs(world.clock.now() - START - 30.0) <= 1.0


def test_our_own_clock_may_jump() -> None:
    world = World()
    world.answer()
    world.wrong_by = 90_000.0
    world.after(1.0)
    world.answer()
    assert abs(world.clock.now() - START - 1.0) <= 1.0


def test_an_answer_that_waited_for_us_changes_nothing() -> None:
    world = World()
    world.answer()
    world.after(20.0)
    world.answer(late=15.0)
    world.after(1.0)
    world.answer()
    assert abs(world.clock.now() - START - 21.0) <= 1.0


def test_it_follows_the_server_after_our_machine_slept() -> None:
    world = World()
    world.answer()
    world.server += 7200.0
    world.answer()
    world.after(1.5)
    world.answer()
    assert abs(world.clock.now() - START - 7201.5) <= 1.0


@pytest.mark.parametrize("date", ["", "yesterday", "Sat, 99 Nov 2026 25:00:00 GMT"])
def test_an_unreadable_date_says_nothing(date: str) -> None:
    world = World()
    world.clock.heard(date)
    assert world.clock.now() == START
