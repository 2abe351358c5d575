"""A clock that is set back does not stop what waits for a time."""

from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.memory import PullerMemory
from prewarm.puller.purge_memory import REFUSED_SECONDS, PurgeMemory, PurgeOrder

NOON, ELEVEN = 1_800_003_600.0, 1_800_000_000.0


def test_a_write_without_effect_is_repeated_though_the_clock_was_set_back() -> None:
    """A status that was lost at noon is written at eleven, not an hour later."""
    memory = PullerMemory()
    assert memory.is_new("Status", "shop", "base", "value", NOON)
    memory.catch_up(ClusterSnapshot(taken_at=ELEVEN))
    assert memory.written_at("Status", "shop", "base") is None
    assert memory.is_new("Status", "shop", "base", "value", ELEVEN)


def test_a_purge_goes_on_though_the_clock_was_set_back() -> None:
    """Neither a lost order nor a refusal of a later time holds a node for longer than it should."""
    memory = PurgeMemory()
    memory.orders = {("prewarm", "lost"): PurgeOrder("a", NOON), ("prewarm", "refused"): PurgeOrder("b", NOON)}
    memory.refused("prewarm", "refused", "no", NOON)
    memory.catch_up((), ELEVEN)
    assert not memory.orders
    assert memory.refused_until == ELEVEN + REFUSED_SECONDS
