"""A live cluster for a command: connect, work, close."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from prewarm.cluster.client import Client

Result = TypeVar("Result")


def with_cluster(kubeconfig: Path | None, context: str | None, work: "Callable[[Client], Awaitable[Result]]") -> Result:
    """Run some work with a client, and return what it returns.

    Raises:
        ClusterError: if there is no cluster to talk to, or it refuses.
    """
    import asyncio

    from prewarm.cluster.client import Client
    from prewarm.cluster.connection import Connection

    connection = Connection.load(kubeconfig, context)

    async def go() -> Result:
        async with Client(connection) as client:
            return await work(client)

    return asyncio.run(go())
