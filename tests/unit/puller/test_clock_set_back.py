"""A clock that is set back does not stop what waits for a time, and has nothing tried without a pause."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import PullPolicy
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.memory import PullerMemory
from prewarm.puller.purge_memory import REFUSED_SECONDS, PurgeMemory, PurgeOrder, Trouble
from tests.support.pulling import MB, World, registries

NOON, ELEVEN = 1_800_003_600.0, 1_800_000_000.0
MISSING, PRESENT = "registry.test/missing:v1", "registry.test/app:v1"


def image_cache(image: str) -> ImageCache:
    """An image for every node."""
    return ImageCache("shop", "base", "uid-base", generation=1, lists=(ImageList((image,)),))


def world(now: float) -> World:
    """Two nodes, and a registry that has one of the images."""
    made = World(registries({PRESENT: 50 * MB}), now=now)
    made.add_nodes(2)
    return made


def set_back(before: World, *, restarted: bool = False) -> World:
    """The same cluster with its clock an hour back."""
    made = world(before.now - (NOON - ELEVEN))
    made.caches, made.records = before.caches, before.records
    made.memory = PullerMemory() if restarted else before.memory
    return made


@pytest.mark.parametrize("restarted", [False, True])
def test_a_failed_pull_is_tried_again_soon_and_not_without_a_pause(restarted: bool) -> None:
    before = world(NOON)
    before.add_cache(image_cache(MISSING))
    before.run(30.0)
    assert before.condition("base") == (False, "PullsFailed")
    after = set_back(before, restarted=restarted)
    after.run(300.0)
    # Back-off lets a pull be tried six times at most in five minutes.
    assert 2 * 1 <= len(after.created) <= 2 * 6
    assert all(failure.at < after.now for record in after.records.values() for failure in record.failures)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_refused_pod_is_asked_for_again_soon_and_not_without_a_pause(restarted: bool) -> None:
    before = world(NOON)
    before.refusal = "exceeded quota: pods=3"
    before.add_cache(image_cache(PRESENT))
    before.run(30.0)
    after = set_back(before, restarted=restarted)
    after.refusal = before.refusal
    after.run(300.0)
    assert 1 <= after.creates <= 2 * 6
    after.refusal = ""
    after.run(400.0)
    assert after.pulls_of(PRESENT) == {"n0": 1, "n1": 1}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cache_that_was_created_later_than_now_pulls_once(restarted: bool) -> None:
    before = world(NOON)
    before.add_cache(replace(image_cache(PRESENT), pull_policy=PullPolicy.ALWAYS, refresh_seconds=0.0))
    after = set_back(before, restarted=restarted)
    after.run(300.0)
    assert after.condition("base") == (True, "Warm")
    assert after.pulls_of(PRESENT) == {"n0": 1, "n1": 1}


def test_a_write_without_effect_is_repeated_though_the_clock_was_set_back() -> None:
    """A status that was lost at noon is written at eleven, not an hour later."""
    memory = PullerMemory()
    assert memory.is_new("Status", "shop", "base", "value", NOON)
    memory.catch_up(ClusterSnapshot(taken_at=ELEVEN))
    assert memory.written_at("Status", "shop", "base") is None
    assert memory.is_new("Status", "shop", "base", "value", ELEVEN)


def test_a_purge_goes_on_though_the_clock_was_set_back() -> None:
    """Neither a lost order nor a refusal or failure of a later time holds a node for longer than it should."""
    memory = PurgeMemory()
    memory.orders = {("prewarm", "lost"): PurgeOrder("a", NOON), ("prewarm", "refused"): PurgeOrder("b", NOON)}
    memory.refused("prewarm", "refused", "no", NOON)
    memory.troubles = {"c": Trouble(2, NOON, "no such socket"), "d": Trouble(1, ELEVEN - 4.0, "no such socket")}
    memory.catch_up((), ELEVEN)
    assert not memory.orders
    assert memory.refused_until == ELEVEN + REFUSED_SECONDS
    assert {node: trouble.at for node, trouble in memory.troubles.items()} == {"c": ELEVEN, "d": ELEVEN - 4.0}
