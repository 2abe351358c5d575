"""Requests are repeated where that is harmless, and errors say what the server said."""

import asyncio

import pytest

from prewarm.cluster.client import Client, Limits
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError, ServerUnreachable
from prewarm.cluster.live import read_cluster
from prewarm.model.intents import CONFIG_MAPS, PODS, Manifest
from tests.support.fake_api_server import FakeApiServer, Hang, Refuse, Send
from tests.support.manifests import pod
from tests.support.mirroring import QUICK

UNAVAILABLE = Refuse(503, "ServiceUnavailable", "try later")
CONFIG: Manifest = {"metadata": {"name": "a"}, "data": {}}


async def test_transient_errors_are_tried_again(server: FakeApiServer, client: Client) -> None:
    server.put(PODS, pod("a"))
    server.fail_next("get", PODS, UNAVAILABLE, Refuse(500, "InternalError", "etcd leader changed"))
    assert b'"a"' in await client.get(PODS, "shop", "a")
    assert server.count("get", PODS) == 3


async def test_an_error_that_stays_is_raised_with_the_servers_words(server: FakeApiServer, client: Client) -> None:
    server.fail_next("get", PODS, *[UNAVAILABLE] * 20)
    with pytest.raises(ApiError, match="GET /api/v1/namespaces/shop/pods/a: 503 ServiceUnavailable: try later"):
        await client.get(PODS, "shop", "a")


async def test_refusals_are_not_tried_again(server: FakeApiServer, client: Client) -> None:
    server.fail_next("create", CONFIG_MAPS, Refuse(403, "Forbidden", "exceeded quota"))
    with pytest.raises(ApiError) as raised:
        await client.create(CONFIG_MAPS, "shop", CONFIG)
    assert (raised.value.code, raised.value.reason, raised.value.message) == (403, "Forbidden", "exceeded quota")
    assert server.count("create", CONFIG_MAPS) == 1


@pytest.mark.parametrize(("refusal", "tries"), [(UNAVAILABLE, 1), (Refuse(429, "TooManyRequests"), 2)])
async def test_an_update_is_repeated_only_if_it_was_not_processed(
    server: FakeApiServer, client: Client, refusal: Refuse, tries: int
) -> None:
    """After a lost answer the same update would conflict with itself."""
    server.put(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "shop"}})
    server.fail_next("update", CONFIG_MAPS, refusal)
    update: Manifest = {"metadata": {"name": "a", "namespace": "shop"}, "data": {"x": "y"}}
    replacing = client.replace(CONFIG_MAPS, "shop", "a", update)
    if tries == 1:
        with pytest.raises(ApiError):
            await replacing
    else:
        await replacing
    assert server.count("update", CONFIG_MAPS) == tries


async def test_no_answer_in_time_is_an_error_that_says_so(server: FakeApiServer) -> None:
    server.fail_next("get", PODS, Hang(), Hang())
    limits = Limits(request=0.05, attempts=2, patience=QUICK)
    async with Client(server.connection(), limits=limits) as client:
        with pytest.raises(ServerUnreachable, match=r"no complete answer within 0\.05 s"):
            await client.get(PODS, "shop", "a")


async def test_a_server_that_is_not_there_is_an_error_that_says_where() -> None:
    probe = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    address = "http://{}:{}".format(*probe.sockets[0].getsockname())
    probe.close()
    await probe.wait_closed()
    async with Client(Connection(address), limits=Limits(attempts=2, patience=QUICK)) as client:
        with pytest.raises(ServerUnreachable, match=address):
            await client.version()


async def test_a_live_cluster_without_our_kinds_is_read_all_the_same(server: FakeApiServer, client: Client) -> None:
    server.missing = {"imagecaches", "nodeimages", "prewarmpolicies"}
    server.page_size = 1
    for name in "abc":
        server.put(PODS, pod(name, node="n1"))
    server.fail_next("list", PODS, Send(b""), Refuse(410, "Expired", "too old"))
    snapshot = await read_cluster(client, 5.0)
    assert snapshot.usage["n1"].pods == 3
    assert snapshot.taken_at == 5.0


async def test_one_list_that_is_refused_is_one_plain_error(server: FakeApiServer, client: Client) -> None:
    server.fail_next("list", PODS, Refuse(403, "Forbidden", 'pods is forbidden: User "me" cannot list'))
    with pytest.raises(ApiError, match="cannot list"):
        await read_cluster(client, 0.0)
