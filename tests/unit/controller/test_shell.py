"""kopf may end in any way: the witness comes back."""

import asyncio

import kopf
import pytest

from prewarm.cluster.connection import Connection
from prewarm.controller import shell
from prewarm.controller.shell import OwnEvent, Shell


@pytest.mark.parametrize("end", [asyncio.CancelledError(), RuntimeError("broken"), None])
async def test_kopf_is_started_again(monkeypatch: pytest.MonkeyPatch, end: BaseException | None) -> None:
    lives = 0
    twice = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def operator(**_: object) -> None:
        nonlocal lives
        lives += 1
        if lives == 2:
            loop.call_soon_threadsafe(twice.set)
        if end is not None:
            raise end

    def listen(_: OwnEvent) -> None:
        """Nothing happens."""

    monkeypatch.setattr(kopf, "operator", operator)
    monkeypatch.setattr(shell, "RESTART_SECONDS", 0.0)
    running = asyncio.create_task(Shell(Connection("http://127.0.0.1:1"), listen).run())
    async with asyncio.timeout(20):
        await twice.wait()
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
