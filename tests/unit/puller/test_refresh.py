"""When refreshes begin: at a pace of their own, at given times, on request; whatever the clock and restarts do."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import Completion, ImageCache, ImageCacheStatus, Schedule
from prewarm.model.images import PullPolicy
from prewarm.model.times import FUTURE_SECONDS
from prewarm.puller.refresh import (
    SHORTEST_SECONDS,
    Refreshes,
    asked,
    asks_again,
    refresh_of,
    times_of,
)
from prewarm.puller.requests import EMPTY

CREATED = 1_000_000.0
CACHE = ImageCache("shop", "base", uid="uid-base", generation=1, created_at=CREATED, refresh_seconds=900.0)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_interval_counts_from_the_creation_within_a_tenth() -> None:
    first = refresh_of(CACHE, CREATED + 1.0)
    assert first.at == CREATED
    assert first.next_at is not None
    assert 810.0 <= first.next_at - CREATED <= 990.0
    second = refresh_of(CACHE, first.next_at)
    assert second.at == int(first.next_at)
    assert second.anew_at == CREATED


def test_many_caches_of_one_moment_spread_out() -> None:
    due = sorted(refresh_of(replace(CACHE, uid=f"uid-{n}"), CREATED).next_at or 0.0 for n in range(200))
    assert due[-1] - due[0] > 150.0
    most = max(sum(1 for other in due if time <= other < time + 10.0) for time in due)
    assert most <= 30


@pytest.mark.parametrize("seconds", [0.0, None])
def test_without_an_interval_none_comes_by_itself(seconds: float | None) -> None:
    assert refresh_of(replace(CACHE, refresh_seconds=seconds), CREATED + 1e7).next_at is None


def test_tiny_intervals_are_taken_for_the_shortest() -> None:
    found = refresh_of(replace(CACHE, refresh_seconds=0.001), CREATED)
    assert (found.next_at or 0.0) - CREATED >= 0.9 * SHORTEST_SECONDS


def test_once_has_no_interval() -> None:
    found = refresh_of(replace(CACHE, completion=Completion(once=True)), CREATED + 5000.0)
    assert (found.at, found.next_at) == (CREATED, None)


def test_what_was_missed_is_made_up_once() -> None:
    cache = replace(CACHE, created_at=at("2026-03-01"), refresh_seconds=0.0, schedule=Schedule("30 5 * * *"))
    late = refresh_of(cache, at("2026-03-09T11:00:00"))
    assert late.at == late.anew_at == at("2026-03-09T05:30:00")
    assert late.next_at == at("2026-03-10T05:30:00")
    assert refresh_of(cache, at("2026-03-10T05:29:59")).at == late.at


def test_time_before_the_creation_does_not_count() -> None:
    cache = replace(CACHE, created_at=at("2026-03-01T12:00:00"), refresh_seconds=0.0, schedule=Schedule("30 5 * * *"))
    assert refresh_of(cache, at("2026-03-01T13:00:00")).at == cache.created_at


@pytest.mark.parametrize(
    ("cron", "now", "last", "following"),
    [
        # Clocks go forward on 29 March 2026 at 01:00 UTC: 02:30 does not exist and comes at once.
        ("30 2 * * *", "2026-03-29T12:00:00", "2026-03-29T01:00:00", "2026-03-30T00:30:00"),
        # They go back on 25 October at 01:00 UTC: 02:30 exists twice and comes once.
        ("30 2 * * *", "2026-10-25T12:00:00", "2026-10-25T00:30:00", "2026-10-26T01:30:00"),
        ("0 12 * * *", "2026-07-01T10:00:00", "2026-07-01T10:00:00", "2026-07-02T10:00:00"),
        ("0 12 * * *", "2026-01-15T10:59:59", "2026-01-14T11:00:00", "2026-01-15T11:00:00"),
    ],
)
def test_schedule_follows_the_clocks_of_its_zone(cron: str, now: str, last: str, following: str) -> None:
    assert times_of(Schedule(cron, "Europe/Berlin"), at(now)) == (at(last), at(following))


def test_requests_count_once_for_each_value() -> None:
    new = replace(CACHE, refresh_request="2026-01-01")
    assert asked(new).mark == "2026-01-01"
    heeded = replace(new, status=ImageCacheStatus(refresh_handled="2026-01-01", requested_at=CREATED + 60.0))
    assert asked(heeded).mark is None
    assert refresh_of(heeded, CREATED + 61.0).anew_at == CREATED + 60.0
    assert asked(replace(heeded, refresh_request="again")).mark == "again"
    assert asked(replace(heeded, refresh_request=None)).recorded == "2026-01-01"


def test_empty_request_is_removed_and_can_come_again() -> None:
    new = replace(CACHE, refresh_request="")
    assert asked(new).mark == EMPTY
    assert not asked(new).is_removable
    heeded = replace(new, status=ImageCacheStatus(refresh_handled=EMPTY))
    assert asked(heeded).mark is None
    assert asked(heeded).is_removable
    removed = replace(heeded, refresh_request=None)
    assert asked(removed).recorded == ""
    assert asked(replace(removed, status=ImageCacheStatus(), refresh_request="")).mark == EMPTY


def test_request_of_a_clock_that_was_wrong_is_not_believed() -> None:
    wrong = replace(CACHE, status=ImageCacheStatus(requested_at=CREATED + 10 * 86_400.0))
    assert refresh_of(wrong, CREATED + 60.0).at == CREATED
    near = replace(CACHE, status=ImageCacheStatus(requested_at=CREATED + FUTURE_SECONDS))
    assert refresh_of(near, CREATED + 60.0).at == CREATED + FUTURE_SECONDS


def test_request_keeps_its_time_until_it_is_written() -> None:
    memory = Refreshes()
    asked = replace(CACHE, refresh_request="now", status=ImageCacheStatus(observed_generation=1))
    first = memory.begun_at(asked, "now", CREATED + 10.7)
    assert first == CREATED + 10.0
    assert memory.begun_at(asked, "now", CREATED + 14.0) == first
    assert memory.begun_at(asked, "again", CREATED + 15.0) == CREATED + 15.0
    # One that comes with a new object asks for nothing that its creation does not.
    assert memory.begun_at(replace(asked, status=ImageCacheStatus()), "now", CREATED + 15.0) == CREATED


def test_memory_changes_nothing_while_the_clock_jumps() -> None:
    memory = Refreshes()
    cache = replace(CACHE, schedule=Schedule("*/7 * * * *", "Asia/Kolkata"))
    for seconds in (0, 100, 5000, 4000, 0, 1e6, 999_000.0, 1e6 + 900, 1e6):
        assert memory.of(cache, CREATED + seconds) == refresh_of(cache, CREATED + seconds)


@pytest.mark.parametrize(
    ("image", "policy", "again"),
    [
        ("registry.test/a", PullPolicy.IF_NOT_PRESENT, True),
        ("registry.test:5000/a", PullPolicy.IF_NOT_PRESENT, True),
        ("registry.test/a:latest", PullPolicy.IF_NOT_PRESENT, True),
        ("registry.test/a:latest-1", PullPolicy.IF_NOT_PRESENT, False),
        ("registry.test/latest:v1", PullPolicy.IF_NOT_PRESENT, False),
        ("registry.test/a:v1", PullPolicy.ALWAYS, True),
        (f"registry.test/a@sha256:{'0' * 64}", PullPolicy.ALWAYS, False),
        (f"registry.test/a:latest@sha256:{'0' * 64}", PullPolicy.IF_NOT_PRESENT, False),
        ("Not An Image", PullPolicy.IF_NOT_PRESENT, False),
    ],
)
def test_what_may_have_moved_is_asked_for_again(image: str, policy: PullPolicy, again: bool) -> None:
    assert asks_again(replace(CACHE, pull_policy=policy), image) is again
