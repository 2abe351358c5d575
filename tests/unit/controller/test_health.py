"""Liveness notices a stuck loop and a deaf reflector, and nothing else."""

from prewarm.controller.health import DEAF_SECONDS, Heartbeat, Sighting, Witness
from prewarm.model.image_caches import ImageCache
from prewarm.model.snapshot import ClusterSnapshot

KEY = ("shop", "base")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waiting_is_no_stall_and_a_long_cycle_is() -> None:
    clock = Clock()
    heartbeat = Heartbeat(clock, stall_seconds=60.0)
    clock.now = 10_000.0
    assert heartbeat.problem() == ""
    heartbeat.begin()
    clock.now += 61.0
    assert "61 s" in heartbeat.problem()
    heartbeat.end()
    assert heartbeat.problem() == ""


def store_with(*caches: ImageCache) -> ClusterSnapshot:
    return ClusterSnapshot(image_caches={cache.key: cache for cache in caches})


def test_a_change_that_the_reflector_misses_for_long_is_deafness() -> None:
    witness = Witness()
    witness.saw(KEY, Sighting("uid", 2, deleted=False, at=0.0))
    old = store_with(ImageCache("shop", "base", "uid", generation=1))
    assert witness.deaf(old, DEAF_SECONDS) == ""
    assert "shop/base" in witness.deaf(old, DEAF_SECONDS + 1)
    assert witness.deaf(store_with(ImageCache("shop", "base", "uid", generation=2)), DEAF_SECONDS + 2) == ""
    assert witness.deaf(old, 10 * DEAF_SECONDS) == ""


def test_a_deletion_that_the_reflector_misses_for_long_is_deafness() -> None:
    witness = Witness()
    witness.saw(KEY, Sighting("uid", 2, deleted=True, at=0.0))
    assert witness.deaf(store_with(ImageCache("shop", "base", "uid", generation=2)), DEAF_SECONDS + 1)
    assert not witness.deaf(store_with(ImageCache("shop", "base", "another")), DEAF_SECONDS + 1)
