"""Looks at the pulls of a large cluster leave the event loop to others; answers that come meanwhile count after it."""

import asyncio
import threading

import pytest
from msgspec.structs import replace

from prewarm.cluster.writer import WriteOutcome, WriteResult
from prewarm.controller import looking
from prewarm.controller.clocks import Clocks
from prewarm.controller.looking import Looks
from prewarm.history import History
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.intents import Create
from prewarm.model.nodes import Node
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller import PullerDecision, PullerMemory, PullerSettings, reconcile

NOW = 1000.0


def snapshot() -> ClusterSnapshot:
    nodes = {name: Node(name, f"uid-{name}") for name in ("node-a", "node-b")}
    cache = ImageCache("shop", "base", uid="uid-base", generation=1, lists=(ImageList(("registry.test/web:v1",)),))
    return ClusterSnapshot(NOW, nodes, image_caches={cache.key: cache})


def looks() -> Looks:
    """Of an instance whose looks take no time."""
    return Looks(PullerSettings(), PullerMemory(), Clocks(lambda: NOW, lambda: 0.0))


def refusals(found: Looks) -> list[str]:
    return [refusal.message for refusal in found.memory.refusals]


async def test_a_look_that_judges_much_for_the_first_time_leaves_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []

    def reconciling(*arguments: object, **named: object) -> PullerDecision:
        threads.append(threading.get_ident())
        return reconcile(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "reconcile", reconciling)
    found = looks()
    await found.look(snapshot(), History())
    monkeypatch.setattr(looking, "INLINE_PAIRS", 1)
    await found.look(snapshot(), History())
    # All is judged by then; only a new cache, or a new term, has to be judged as a whole.
    assert threads == [threading.get_ident()] * 2
    await looks().look(snapshot(), History())
    assert threads[2] != threading.get_ident()


async def test_answers_that_come_during_a_look_count_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def reconciling(*arguments: object, **named: object) -> PullerDecision:
        begun.set()
        assert go_on.wait(20.0)
        return reconcile(*arguments, **named)  # type: ignore[arg-type]

    found = looks()
    creates = [i for i in (await found.look(snapshot(), History())).intents if isinstance(i, Create)]
    assert len(creates) == 2
    monkeypatch.setattr(looking, "reconcile", reconciling)
    found.seconds = looking.INLINE_SECONDS + 1
    look = asyncio.create_task(found.look(snapshot(), History()))
    await asyncio.to_thread(begun.wait, 20.0)
    found.heed(WriteResult(creates[0], WriteOutcome.REFUSED, message="exceeded quota"), NOW)
    assert refusals(found) == []
    go_on.set()
    await look
    assert refusals(found) == ["exceeded quota"]


async def test_places_kept_for_first_pulls_are_given_away_soon() -> None:
    found = Looks(PullerSettings(cluster_pulls=2), PullerMemory(), Clocks(lambda: NOW, lambda: 0.0))
    kept = await found.look(snapshot(), History(), first_pulls=5)
    assert sum(isinstance(intent, Create) for intent in kept.intents) == 1
    assert kept.wake_at is not None
    assert kept.wake_at <= NOW + looking.AGAIN_SECONDS
    given = await found.look(snapshot(), History())
    assert sum(isinstance(intent, Create) for intent in given.intents) == 1


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        (500, "failed calling webhook", ["failed calling webhook"]),
        (503, "", ["ServiceUnavailable"]),
        (429, "too many requests", []),
        (0, "no answer: connection refused", []),
    ],
)
async def test_lasting_errors_of_the_server_are_a_refusal_in_its_words(
    code: int, message: str, told: list[str]
) -> None:
    now = NOW
    found = Looks(PullerSettings(), PullerMemory(), Clocks(lambda: now, lambda: 0.0))
    reason = "ServiceUnavailable" if code == 503 else ""
    for now in (NOW, NOW + 1, NOW + 5):
        decision = await found.look(replace(snapshot(), taken_at=now), History())
        assert refusals(found) == []
        for create in decision.intents:
            if isinstance(create, Create):
                found.heed(WriteResult(create, WriteOutcome.FAILED, code, reason, message), now)
    assert refusals(found) == told * 2
