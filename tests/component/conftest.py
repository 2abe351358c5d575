"""A fake API server, and a client of it."""

from collections.abc import AsyncIterator

import pytest

from prewarm.cluster.client import Client
from tests.support.fake_api_server import FakeApiServer
from tests.support.mirroring import connected


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as server:
        yield server


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[Client]:
    async with connected(server) as client:
        yield client
