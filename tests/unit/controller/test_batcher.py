"""A burst is one batch; a busy cluster does not wait for ever."""

from collections.abc import Iterable

from prewarm.controller.batcher import Batcher


async def waited(changes: Iterable[float], *, idle: float = 0.02, longest: float = 0.1) -> float:
    """Seconds that a batcher waits if further changes come at these times."""
    now = 0.0
    coming = sorted(changes)

    async def more(seconds: float) -> bool:
        nonlocal now
        if coming and coming[0] <= now + seconds:
            now = max(now, coming.pop(0))
            return True
        now += seconds
        return False

    await Batcher(idle=idle, longest=longest, clock=lambda: now).gather(more)
    return now


async def test_a_single_change_waits_for_the_idle_time() -> None:
    assert await waited([]) == 0.02


async def test_a_burst_is_over_after_its_last_change() -> None:
    assert await waited([0.01, 0.02, 0.03]) == 0.05


async def test_a_stream_of_changes_waits_no_longer_than_the_maximum() -> None:
    assert await waited([number / 100 for number in range(100)]) <= 0.1
