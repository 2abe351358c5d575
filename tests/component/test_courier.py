"""Plans go on while ImageCaches are written: each object ends as the last plan has it, and no answer is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import WriteOutcome, Writer, WriteResult
from prewarm.controller.courier import Courier
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.model.intents import IMAGE_CACHES, Apply, Delete, Manifest
from prewarm.model.workloads import WorkloadKey
from tests.support.fake_api_server import FakeApiServer, Hang, Refuse
from tests.support.mirroring import connected

WEB = WorkloadKey("Deployment", "shop", "web")
API = WorkloadKey("Deployment", "shop", "api")


def cache(name: str, priority: int) -> Apply:
    manifest: Manifest = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"priority": priority},
    }
    return Apply(IMAGE_CACHES, "shop", name, manifest)


Answer = tuple[str, WriteOutcome, frozenset[WorkloadKey]]
TIMEOUT_SECONDS = 20.0


class Answers:
    """What a courier heard."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[Answer] = asyncio.Queue()

    def __call__(self, result: WriteResult, about: frozenset[WorkloadKey]) -> None:
        self._heard.put_nowait((result.intent.name, result.outcome, about))

    async def next(self, number: int) -> list[Answer]:
        """The next ones, in the order in which they came."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return [await self._heard.get() for _ in range(number)]


@asynccontextmanager
async def running(server: FakeApiServer) -> AsyncIterator[tuple[Courier, Answers]]:
    async with connected(server) as client:
        store, answers = Store(), Answers()
        courier = Courier(Execution(Writer(client), store, feeds(store), Metrics(version="test")), answers)
        writing = asyncio.create_task(courier.run(), name="courier")
        try:
            yield courier, answers
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


def priority(server: FakeApiServer, name: str) -> object:
    return server.objects(IMAGE_CACHES)["shop", name]["spec"]["priority"]


async def test_the_last_word_on_an_object_is_written_last_and_what_is_between_is_not() -> None:
    async with FakeApiServer.running() as server, running(server) as (courier, answers):
        hang = Hang()
        server.fail_next("patch", IMAGE_CACHES, hang)
        courier.put([cache("web", 1)], [WEB])
        await server.until(lambda: server.count("patch", IMAGE_CACHES) == 1)
        courier.put([cache("web", 2)], [WEB])
        courier.put([Delete(IMAGE_CACHES, "shop", "web")], [WEB])
        courier.put([cache("web", 3)], [WEB])
        courier.put([cache("api", 1)], [API])
        # Another object does not wait for that one.
        assert [name for name, _, _ in await answers.next(1)] == ["api"]
        assert courier.undelivered == {WEB}
        hang.released.set()
        assert [name for name, _, _ in await answers.next(2)] == ["web", "web"]
        assert not courier.undelivered
        assert priority(server, "web") == 3
        assert server.count("patch", IMAGE_CACHES) == 3
        assert server.count("delete", IMAGE_CACHES) == 0


async def test_what_is_withdrawn_while_it_is_written_is_gone_in_the_end() -> None:
    async with FakeApiServer.running() as server, running(server) as (courier, answers):
        hang = Hang()
        server.fail_next("patch", IMAGE_CACHES, hang)
        courier.put([cache("web", 1)], [WEB])
        await server.until(lambda: server.count("patch", IMAGE_CACHES) == 1)
        courier.put([Delete(IMAGE_CACHES, "shop", "web")], [WEB])
        hang.released.set()
        assert [outcome for _, outcome, _ in await answers.next(2)] == [WriteOutcome.APPLIED, WriteOutcome.DELETED]
        assert ("shop", "web") not in server.objects(IMAGE_CACHES)


async def test_every_answer_is_told_with_whom_it_concerns() -> None:
    async with FakeApiServer.running() as server, running(server) as (courier, answers):
        server.fail_next("patch", IMAGE_CACHES, Refuse(403, "Forbidden", "no"))
        courier.put([cache("web", 1)], [WEB])
        assert await answers.next(1) == [("web", WriteOutcome.REFUSED, frozenset({WEB}))]
        courier.put([cache("api", 1)], [API, WEB])
        assert await answers.next(1) == [("api", WriteOutcome.APPLIED, frozenset({API, WEB}))]
