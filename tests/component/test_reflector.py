"""The mirror stays true to the server through everything that a server and a network do."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from prewarm.cluster.credentials import FixedAuthorization, TokenFile
from prewarm.model.intents import EVENTS, IMAGE_CACHES, NODES, PODS
from prewarm.model.snapshot import ClusterSnapshot
from tests.support.fake_api_server import Cut, FakeApiServer, Refuse, Send, Stall
from tests.support.manifests import node, pod
from tests.support.mirroring import mirroring, reflector, until


def names(snapshot: ClusterSnapshot) -> set[str]:
    return {name for _, name in snapshot.pods}


async def watched(server: FakeApiServer, watches: int = 1) -> None:
    """The pods' watch is open and idle, and it is the so-many-eth."""
    await server.until(lambda: server.watching(PODS) and server.count("watch", PODS) >= watches)


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_is_there_and_what_comes_and_goes(server: FakeApiServer, streamed: bool) -> None:
    server.put(PODS, pod("a", node="n1"))
    server.put(PODS, pod("b"))
    async with mirroring(server, streamed=streamed) as mirror:
        assert names(mirror.store.snapshot(0.0)) == {"a", "b"}
        await watched(server)
        server.put(PODS, pod("c"))
        server.put(PODS, pod("b", node="n1"))
        server.remove(PODS, "shop", "a")
        snapshot = await until(mirror, lambda now: names(now) == {"b", "c"})
        assert snapshot.pods_by_node["n1"].keys() == {("shop", "b")}
        assert reflector(mirror, PODS).counters.lists == 1


async def test_a_server_that_cannot_stream_lists_is_read_in_pages(server: FakeApiServer) -> None:
    server.streams_lists = False
    server.page_size = 2
    for name in "abcde":
        server.put(PODS, pod(name))
    async with mirroring(server) as mirror:
        assert names(mirror.store.snapshot(0.0)) == set("abcde")
        assert [request.query.get("continue") for request in server.asked("list", PODS)] == [None, "2", "4"]
        await watched(server)
        server.put(PODS, pod("f"))
        await until(mirror, lambda now: "f" in names(now))


async def test_an_expired_continue_token_starts_the_list_again(server: FakeApiServer) -> None:
    server.page_size = 2
    for name in "abc":
        server.put(PODS, pod(name))
    server.fail_next("list", PODS, Send(b""), Refuse(410, "Expired", "the provided continue parameter is too old"))
    async with mirroring(server, streamed=False) as mirror:
        assert names(mirror.store.snapshot(0.0)) == set("abc")


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_vanished_while_nobody_watched_is_removed(server: FakeApiServer, streamed: bool) -> None:
    """410 on the watch: the new list is compared with what was known."""
    server.put(PODS, pod("stays", node="n1"))
    server.put(PODS, pod("vanishes", node="n1"))
    async with mirroring(server, streamed=streamed) as mirror:
        await watched(server)
        mirror.store.changed()
        server.remove(PODS, "shop", "vanishes", silent=True)
        server.forget(PODS)
        server.inject(PODS, Cut())
        snapshot = await until(mirror, lambda now: names(now) == {"stays"})
        assert snapshot.usage["n1"].pods == 1
        assert reflector(mirror, PODS).counters.vanished == 1


async def test_a_stream_cut_in_the_middle_of_an_object_goes_on_where_it_was(server: FakeApiServer) -> None:
    async with mirroring(server) as mirror:
        await watched(server)
        server.put(PODS, pod("a"))
        await until(mirror, lambda now: names(now) == {"a"})
        server.inject(PODS, Cut(b'{"type":"ADDED","object":{"metadata":{"name":"b","namesp'))
        server.put(PODS, pod("b"))
        await until(mirror, lambda now: names(now) == {"a", "b"})
        assert reflector(mirror, PODS).counters.lists == 1


async def test_an_object_larger_than_any_buffer_arrives(server: FakeApiServer) -> None:
    """Objects may have 1.5 MB; a stream reader's lines end long before."""
    async with mirroring(server) as mirror:
        await watched(server)
        server.put(PODS, pod("large", annotations={"prewarm.dev/images": "x" * 1_400_000}))
        snapshot = await until(mirror, lambda now: names(now) == {"large"})
        assert len(snapshot.pods["shop", "large"].annotations["prewarm.dev/images"]) == 1_400_000


async def test_a_silent_stream_is_given_up(server: FakeApiServer) -> None:
    """A connection that stands but brings nothing, as behind a load balancer that forgot it."""
    async with mirroring(server, silence=0.05) as mirror:
        await watched(server)
        server.inject(PODS, Stall())
        server.put(PODS, pod("a"))
        await until(mirror, lambda now: names(now) == {"a"})


async def test_a_server_that_never_ends_the_first_objects_is_read_in_pages(server: FakeApiServer) -> None:
    server.put(PODS, pod("a"))
    server.fail_next("watch", PODS, Stall())
    async with mirroring(server, silence=0.05) as mirror:
        assert names(mirror.store.snapshot(0.0)) == {"a"}
        assert server.count("list", PODS) == 1


async def test_a_line_that_is_no_event_leads_to_a_new_list(server: FakeApiServer) -> None:
    async with mirroring(server) as mirror:
        await watched(server)
        server.inject(PODS, Send(b"<html>502 Bad Gateway</html>\n"))
        await watched(server, watches=2)
        server.put(PODS, pod("a"))
        await until(mirror, lambda now: names(now) == {"a"})
        assert reflector(mirror, PODS).counters.lists == 2


@pytest.mark.parametrize("streamed", [True, False])
async def test_errors_of_the_server_are_said_once_and_outlived(server: FakeApiServer, streamed: bool) -> None:
    server.put(PODS, pod("a"))
    server.streams_lists = streamed
    trouble = [Refuse(503, "ServiceUnavailable", "etcd is away")] * 8
    server.fail_next("watch" if streamed else "list", PODS, *trouble)
    with capture_logs() as logs:
        async with mirroring(server, streamed=streamed) as mirror:
            assert names(mirror.store.snapshot(0.0)) == {"a"}
    said = [entry for entry in logs if "etcd is away" in str(entry.get("problem"))]
    assert len(said) == 1


@pytest.mark.parametrize(("code", "reason"), [(500, "InternalError"), (503, "ServiceUnavailable")])
async def test_a_watch_that_cannot_go_on_for_a_while_costs_no_new_list(
    server: FakeApiServer, code: int, reason: str
) -> None:
    with capture_logs() as logs:
        async with mirroring(server) as mirror:
            await watched(server)
            server.fail_next("watch", PODS, *[Refuse(code, reason, "etcd is away")] * 8)
            server.inject(PODS, Cut())
            server.put(PODS, pod("a"))
            await until(mirror, lambda now: names(now) == {"a"})
            assert reflector(mirror, PODS).counters.lists == 1
    assert len([entry for entry in logs if "etcd is away" in str(entry.get("problem"))]) == 1


async def test_half_a_line_and_then_silence_is_given_up(server: FakeApiServer) -> None:
    async with mirroring(server, silence=0.05) as mirror:
        await watched(server)
        server.inject(PODS, Send(b'{"type":"ADDED","object":{"metadata":{"name":"a","namesp'))
        server.inject(PODS, Stall())
        server.put(PODS, pod("a"))
        await until(mirror, lambda now: names(now) == {"a"})


async def test_retry_after_is_honoured(server: FakeApiServer) -> None:
    server.fail_next("watch", PODS, Refuse(429, "TooManyRequests", "slow down", {"Retry-After": "1"}))
    async with mirroring(server):
        first, second = server.asked("watch", PODS)
        assert second.at - first.at >= 1.0


async def test_a_rotated_token_is_read_again(server: FakeApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    server.token = "old"
    async with mirroring(server, tokens=TokenFile(token)) as mirror:
        await watched(server)
        token.write_text("new\n")
        server.token = "new"
        server.inject(PODS, Cut())
        server.put(PODS, pod("a"))
        await until(mirror, lambda now: names(now) == {"a"})


async def test_refused_credentials_are_one_clear_error_until_they_are_mended(server: FakeApiServer) -> None:
    class Mended(FixedAuthorization):
        async def authorization(self) -> str:
            return "Bearer right" if mended.is_set() else "Bearer wrong"

    mended = asyncio.Event()
    server.token = "right"
    with capture_logs() as logs:
        async with mirroring(server, tokens=Mended(), synced=False) as mirror:
            await server.until(lambda: server.count("watch", PODS) >= 6)
            assert PODS.plural in mirror.missing
            mended.set()
            await mirror.wait_synced()
    said = [entry for entry in logs if entry.get("kind") == "pods" and "401 Unauthorized" in str(entry.get("problem"))]
    assert len(said) == 1


GARBAGE = [
    {"spec": {"containers": "none"}},
    {"metadata": {"name": "bad", "namespace": "shop", "labels": ["a"]}},
    {"status": {"phase": 7}},
]


@pytest.mark.parametrize("broken", GARBAGE)
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_object_that_makes_no_sense_costs_nobody_else(
    server: FakeApiServer, streamed: bool, broken: dict[str, object]
) -> None:
    server.put(PODS, pod("a"))
    server.put(PODS, pod("bad") | broken)
    server.put(PODS, pod("c"))
    async with mirroring(server, streamed=streamed) as mirror:
        assert names(mirror.store.snapshot(0.0)) == {"a", "c"}
        await watched(server)
        server.put(PODS, pod("bad") | broken)
        server.put(PODS, pod("d"))
        await until(mirror, lambda now: names(now) == {"a", "c", "d"})
        assert mirror.problems.count >= 1
        assert reflector(mirror, PODS).counters.lists == 1


async def test_a_new_list_keeps_an_object_that_makes_no_sense_now(server: FakeApiServer) -> None:
    """Its last sound state is better than none: it still runs."""
    server.put(PODS, pod("a", node="n1"))
    async with mirroring(server) as mirror:
        await watched(server)
        server.put(PODS, pod("a") | {"spec": {"containers": 5}}, silent=True)
        server.forget(PODS)
        server.inject(PODS, Cut())
        await watched(server, watches=3)
        assert mirror.store.snapshot(0.0).pods["shop", "a"].node_name == "n1"


async def test_heartbeats_are_no_changes(server: FakeApiServer) -> None:
    for name in ("n1", "n2"):
        server.put(NODES, node(name))
    async with mirroring(server) as mirror:
        await server.until(lambda: server.watching(NODES))
        mirror.store.changed()
        server.put(NODES, node("n1"))
        server.put(NODES, node("n2") | {"spec": {"unschedulable": True}})
        await mirror.store.wait_for_change()
        assert mirror.store.snapshot(0.0).nodes["n2"].unschedulable
        assert mirror.store.changed().nodes == {"n2"}


async def test_kinds_of_ours_that_are_not_installed_are_named_and_awaited(server: FakeApiServer) -> None:
    server.missing = {"imagecaches"}
    with capture_logs() as logs:
        async with mirroring(server, synced=False) as mirror:
            await server.until(lambda: server.count("watch", IMAGE_CACHES) >= 3)
            assert "imagecaches" in mirror.missing
            server.missing = set()
            await mirror.wait_synced()
    said = [entry["problem"] for entry in logs if entry.get("kind") == "imagecaches" and "problem" in entry]
    assert said == ["imagecaches.prewarm.dev is not installed: apply the CRDs (prewarm crds | kubectl apply -f -)"]


async def test_kubelet_events_reach_accounting_once(server: FakeApiServer) -> None:
    def event(count: int) -> dict[str, object]:
        return {
            "metadata": {"name": "e", "namespace": "shop", "uid": "e"},
            "involvedObject": {
                "kind": "Pod",
                "namespace": "shop",
                "name": "a",
                "uid": "pod-a",
                "fieldPath": "spec.containers{web}",
            },
            "reason": "Pulling",
            "message": 'Pulling image "registry.example/web:v1"',
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-11-20T10:00:00Z",
            "lastTimestamp": "2026-11-20T10:00:00Z",
            "count": count,
        }

    server.put(EVENTS, event(1))
    async with mirroring(server) as mirror:
        (first,) = mirror.store.drain_events()
        assert (first.container, first.node_name, first.pod_uid) == ("web", "n1", "pod-a")
        await server.until(lambda: server.watching(EVENTS))
        server.put(EVENTS, event(1))
        server.put(EVENTS, event(2))
        mirror.store.changed()
        await mirror.store.wait_for_change()
        assert [again.count for again in mirror.store.drain_events()] == [2]
        (request,) = server.asked("watch", EVENTS)
        assert "involvedObject.kind=Pod" in request.query["fieldSelector"]
