"""What waits for a slow server stays bounded by the objects that it is about."""

import asyncio

import pytest

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.cluster.writer import Writer
from prewarm.controller.execution import Execution
from prewarm.controller.metrics import Metrics
from prewarm.controller.scribe import AT_ONCE, MOST_AT_ONCE, Scribe
from prewarm.model.intents import EVENTS, IMAGE_CACHES, NODE_IMAGES, PODS, Apply, Delete, RecordEvent
from tests.support.fake_api_server import FakeApiServer, Hang
from tests.support.mirroring import connected


async def test_what_was_asked_for_twice_is_written_once() -> None:
    delete = Delete(PODS, "shop", "a", "uid-a", grace_seconds=0)
    event = RecordEvent(IMAGE_CACHES, "shop", "base", "uid-base", "PullsFailed", "1 pair failed")
    record = Apply(NODE_IMAGES, "", "node-a", {"metadata": {"name": "node-a"}})
    async with FakeApiServer.running() as server, connected(server) as client:
        store = Store()
        scribe = Scribe(Execution(Writer(client), store, feeds(store), Metrics(version="test")))
        for _ in range(3):
            scribe.put([delete, Delete(PODS, "shop", "a", "uid-of-a-namesake"), event, record])
        writing = asyncio.create_task(scribe.run())
        await server.until(lambda: server.count("patch", NODE_IMAGES) == 1)
        # What comes last is written last.
        scribe.put([Delete(PODS, "shop", "b", "uid-b")])
        await server.until(lambda: server.count("delete", PODS) >= 3 and server.count("create", EVENTS) >= 1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert server.count("delete", PODS) == 3
        assert server.count("create", EVENTS) == 1
        assert server.count("patch", NODE_IMAGES) == 1


@pytest.mark.parametrize("deleted_last", [False, True])
async def test_of_a_record_and_its_deletion_only_the_newer_is_written(*, deleted_last: bool) -> None:
    record = Apply(NODE_IMAGES, "", "node-a", {"metadata": {"name": "node-a"}})
    gone = Delete(NODE_IMAGES, "", "node-a")
    async with FakeApiServer.running() as server, connected(server) as client:
        store = Store()
        scribe = Scribe(Execution(Writer(client), store, feeds(store), Metrics(version="test")))
        scribe.put([record, gone] if deleted_last else [gone, record])
        scribe.put([Delete(PODS, "shop", "a")])
        writing = asyncio.create_task(scribe.run())
        await server.until(lambda: server.count("delete", PODS) == 1)
        # What comes last is written last.
        scribe.put([Delete(PODS, "shop", "b")])
        await server.until(lambda: server.count("delete", PODS) == 2)
        await server.until(lambda: server.count("delete", NODE_IMAGES) + server.count("patch", NODE_IMAGES) >= 1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert server.count("patch", NODE_IMAGES) == (not deleted_last)
        assert server.count("delete", NODE_IMAGES) == deleted_last


async def test_what_only_tells_waits_while_the_scribe_rests_and_nothing_else_does() -> None:
    status = Apply(IMAGE_CACHES, "shop", "base", {"status": {"active": 1}}, subresource="status")
    event = RecordEvent(IMAGE_CACHES, "shop", "base", "uid-base", "PullsFailed", "1 pair failed")
    record = Apply(NODE_IMAGES, "", "node-a", {"metadata": {"name": "node-a"}})
    async with FakeApiServer.running() as server, connected(server) as client:
        server.put(IMAGE_CACHES, {"metadata": {"name": "base", "namespace": "shop"}})
        store = Store()
        scribe = Scribe(Execution(Writer(client), store, feeds(store), Metrics(version="test")))
        scribe.rest(True)
        scribe.put([status, event, record, Delete(PODS, "shop", "a")])
        writing = asyncio.create_task(scribe.run())
        await server.until(lambda: server.count("delete", PODS) == 1)
        assert len(server.requests) == 1
        scribe.rest(False)
        await server.until(lambda: len(server.requests) >= 4)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert server.count("create", EVENTS) == 1
        assert server.count("patch", NODE_IMAGES) == 1
        assert server.count("patch", IMAGE_CACHES) == 1


async def test_what_changes_while_it_waits_keeps_its_place() -> None:
    def record(node: str, number: int) -> Apply:
        return Apply(NODE_IMAGES, "", node, {"metadata": {"name": node, "labels": {"number": str(number)}}})

    async with FakeApiServer.running() as server, connected(server) as client:
        store = Store()
        scribe = Scribe(Execution(Writer(client, concurrency=1), store, feeds(store), Metrics(version="test")))
        for number in range(3):
            scribe.put([record("first", number), record(f"other-{number}", number)])
        writing = asyncio.create_task(scribe.run())
        await server.until(lambda: server.count("patch", NODE_IMAGES) == 4)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        names = [request.path.rpartition("/")[2] for request in server.requests]
        assert names == ["first", "other-0", "other-1", "other-2"]


async def test_the_longer_the_queue_the_more_is_written_at_once() -> None:
    async with FakeApiServer.running() as server, connected(server) as client:
        store = Store()
        scribe = Scribe(Execution(Writer(client), store, feeds(store), Metrics(version="test")))
        server.fail_next("delete", PODS, *[Hang()] * (MOST_AT_ONCE + 1))
        scribe.put([Delete(PODS, "shop", f"pod-{number}") for number in range(8)])
        writing = asyncio.create_task(scribe.run())
        await server.until(lambda: server.count("delete", PODS) == AT_ONCE)
        scribe.put([Delete(PODS, "shop", f"more-{number}") for number in range(400)])
        await server.until(lambda: server.count("delete", PODS) == MOST_AT_ONCE)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert server.count("delete", PODS) == MOST_AT_ONCE
