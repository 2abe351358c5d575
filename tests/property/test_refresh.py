"""Refreshes on any clock: none is repeated by a restart, none is lost, and what they ask for is asked for once."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.model.image_caches import Completion, ImageCache, ImageCacheStatus, ImageList, Schedule
from prewarm.model.times import FUTURE_SECONDS
from prewarm.puller.lifecycle import FINISHED
from prewarm.puller.refresh import Refreshes, refresh_of, times_of
from tests.support.pulling import MB, World, registries

MOVING, FIXED = "registry.test/tool:latest", "registry.test/web:v1"
IMAGES = {MOVING: 5 * MB, FIXED: 5 * MB}
ZONES = ("Etc/UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia")
CRONS = ("* * * * *", "*/15 * * * *", "30 2 * * *", "0 0 1 * *", "0 12 * * MON-FRI", "15 1-3 * 3,10 SUN")
TIMES = st.floats(1.0e9, 2.0e9)
caches = st.builds(
    ImageCache,
    st.just("shop"),
    st.just("base"),
    uid=st.text(min_size=1, max_size=5),
    created_at=TIMES,
    refresh_seconds=st.sampled_from([0.0, 1.0, 60.0, 900.0, 86_400.0]),
    schedule=st.none() | st.builds(Schedule, st.sampled_from(CRONS), st.sampled_from(ZONES)),
    completion=st.builds(Completion, once=st.booleans()),
    status=st.builds(ImageCacheStatus, requested_at=st.none() | TIMES.map(lambda time: float(int(time)))),
)


@given(cache=caches, now=TIMES)
@settings(max_examples=200, deadline=None)
def test_last_refresh_is_past_and_next_is_to_come(cache: ImageCache, now: float) -> None:
    found = refresh_of(cache, now)
    created = float(int(cache.created_at))
    assert found.at <= max(now + FUTURE_SECONDS, created)
    assert created <= found.anew_at <= found.at
    assert found.at == int(found.at)
    assert found.next_at is None or found.next_at > now


@given(cache=caches, now=TIMES, steps=st.lists(st.floats(-1e6, 1e6), max_size=6))
@example(
    # On a clock five minutes behind, the request is not believed yet.
    cache=ImageCache("shop", "base", created_at=1.0e9, status=ImageCacheStatus(requested_at=1.0e9 + 1)),
    now=1.0e9,
    steps=[-FUTURE_SECONDS, 0.0],
)
@settings(max_examples=100, deadline=None)
def test_jumping_clocks_and_memory_change_nothing(cache: ImageCache, now: float, steps: list[float]) -> None:
    memory = Refreshes()
    for step in (0.0, *steps):
        assert memory.of(cache, now + step) == refresh_of(cache, now + step)


@given(cache=caches, now=TIMES)
@settings(max_examples=100, deadline=None)
def test_next_refresh_comes_when_it_was_said(cache: ImageCache, now: float) -> None:
    found = refresh_of(cache, now)
    if found.next_at is not None and found.next_at > cache.created_at:
        before, after = refresh_of(cache, found.next_at - 1.5), refresh_of(cache, found.next_at + 0.5)
        assert after.at >= int(found.next_at)
        assert before.at <= found.at or now > found.next_at - 1.5


@given(cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), now=TIMES)
@settings(max_examples=150, deadline=None)
def test_times_of_a_schedule_follow_one_another(cron: str, zone: str, now: float) -> None:
    last, following = times_of(Schedule(cron, zone), now)
    assert last is not None
    assert following is not None
    assert last <= now < following
    assert times_of(Schedule(cron, zone), last)[0] == last
    assert times_of(Schedule(cron, zone), following)[0] == following


@given(
    requests=st.lists(st.tuples(st.floats(2.0, 60.0), st.sampled_from(["", "a", "b", "c"])), max_size=4),
    restarts=st.lists(st.floats(0.05, 150.0), max_size=6),
)
@settings(max_examples=12, deadline=None)
def test_every_request_is_heeded_once(requests: list[tuple[float, str]], restarts: list[float]) -> None:
    found = World(registries(IMAGES))
    found.add_nodes(2)
    lists = (ImageList((MOVING, FIXED)),)
    found.add_cache(ImageCache("shop", "base", uid="uid", generation=1, lists=lists, refresh_seconds=0.0))
    found.settle(60)
    start, expected, handled = found.now + 2.0, 1, ""
    happenings = sorted([(at, None) for at in restarts] + _times(requests), key=lambda entry: entry[0])
    for at, value in happenings:
        found.run(max(0.0, start + at - found.now))
        if value is None:
            found.restart_controller()
            continue
        cache = found.caches["shop", "base"]
        expected += not value or value != handled
        handled = value
        found.caches["shop", "base"] = replace(cache, refresh_request=value)
    found.run(30)
    assert found.pulls_of(FIXED) == dict.fromkeys(found.nodes, 1)
    assert len(found.created) == len(set(found.created)) == 2 * (1 + expected)
    assert found.caches["shop", "base"].refresh_request != ""


def _times(requests: list[tuple[float, str]]) -> list[tuple[float, str | None]]:
    """Requests one after the other, each with time enough to be heeded."""
    times: list[tuple[float, str | None]] = []
    at = 0.0
    for gap, value in requests:
        at += 15.0 + gap
        times.append((at, value))
    return times


@given(restarts=st.lists(st.floats(0.05, 40.0), max_size=5), ttl=st.none() | st.integers(0, 30))
@settings(max_examples=12, deadline=None)
def test_run_ends_once_whoever_starts_anew(restarts: list[float], ttl: int | None) -> None:
    found = World(registries(IMAGES))
    found.add_nodes(3)
    completion = Completion(once=True, ttl_seconds=ttl)
    lists = (ImageList((MOVING, FIXED)),)
    found.add_cache(ImageCache("shop", "base", uid="uid", generation=1, lists=lists, completion=completion))
    start = found.now
    for at in sorted(restarts):
        found.run(max(0.0, start + at - found.now))
        found.restart_controller()
    found.run(60)
    assert found.pulls_of(FIXED) == found.pulls_of(MOVING) == dict.fromkeys(found.nodes, 1)
    assert bool(found.caches) == (ttl is None)
    if ttl is None:
        assert found.condition("base", FINISHED) == (True, "Succeeded")
