"""A snapshot of a live cluster from listing everything once."""

import asyncio
from collections.abc import Collection
from http import HTTPStatus

from prewarm.cluster.client import Client
from prewarm.cluster.errors import ApiError, ClusterError
from prewarm.cluster.feeds import Feed, feeds
from prewarm.cluster.store import Store
from prewarm.model.intents import Resource
from prewarm.model.snapshot import ClusterSnapshot

_LIST_TRIES = 3


async def read_cluster(client: Client, now: float, *, only: Collection[Resource] | None = None) -> ClusterSnapshot:
    """A snapshot from listing a live cluster once, all kinds (or only some) at the same time.

    Kinds that the server does not have (our own, before the CRDs are installed) are taken as empty.

    Raises:
        ApiError: if a list is refused.
        ServerUnreachable: if there is no answer.
    """
    store = Store()
    try:
        async with asyncio.TaskGroup() as group:
            for feed in feeds(store):
                if only is not None and feed.resource not in only:
                    continue
                group.create_task(_list_once(client, feed), name=f"list {feed.resource.plural}")
    except* ClusterError as failed:
        raise failed.exceptions[0] from None
    return store.snapshot(now)


async def _list_once(client: Client, feed: Feed) -> None:
    tries = _LIST_TRIES
    while True:
        keys = set()
        try:
            async for page in client.list_pages(feed.resource):
                keys.update(feed.load(page)[0])
        except ApiError as error:
            # A person who runs a command may lack the right to read what other projects bring.
            if error.not_found or (feed.optional and error.code == HTTPStatus.FORBIDDEN):
                if feed.try_next_version():
                    continue
                return
            tries -= 1
            if error.expired and tries:
                continue
            raise
        feed.keep_only(keys)
        return
