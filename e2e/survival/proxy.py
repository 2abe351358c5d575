"""A proxy between controller and API server that answers wrongly, loses answers and cuts streams, on demand."""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp
import yaml
from aiohttp import web

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
_REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 410: "Expired"}
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass
class Faults:
    """What goes wrong at the moment; nothing by default.

    Attributes:
        refuse: codes that writes are answered with, without asking the server; empty for none.
        refused_share: part of the writes that are.
        lose_share: part of the writes that the server carries out and whose answer is lost.
        expire: whether watches that would go on from a version are told that it is too old.
        stalled: cleared while no stream may say anything.
    """

    random: Random
    refuse: tuple[int, ...] = ()
    refused_share: float = 1.0
    lose_share: float = 0.0
    expire: bool = False
    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.stalled.set()


class FaultProxy:
    """Forwards everything to the API server, except for what `faults` says.

    Attributes:
        faults: what goes wrong now.
        done: faults that were played, by name.
    """

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._streams: set[asyncio.Transport] = set()
        self.faults = Faults(Random(0))  # noqa: S311 - not cryptography
        self.done: Counter[str] = Counter()
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        """Serve on a free loopback port for the length of the block."""
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None  # noqa: SLF001 - aiohttp tells a port chosen by the kernel no other way
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # noqa: SLF001
        connector = aiohttp.TCPConnector(limit=0, ssl=self._context)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            self._session = session
            try:
                yield self
            finally:
                self.cut_streams()
                await runner.cleanup()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here; the proxy has the credentials."""
        name = "proxy"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    def cut_streams(self) -> None:
        """End every watch in the middle of whatever it says."""
        self.done["watch cut"] += len(self._streams)
        for connection in self._streams:
            connection.abort()
        self._streams.clear()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        faults = self.faults
        if request.query.get("watch") == "true":
            return await self._watch(request)
        write = request.method in _WRITES and "leases" not in request.path
        if write and faults.refuse and faults.random.random() < faults.refused_share:
            return self._refusal(faults.random.choice(faults.refuse))
        body = await request.read()
        try:
            async with self._ask(request, body) as answer:
                content = await answer.read()
                status, headers = answer.status, _headers(answer.headers)
        except aiohttp.ClientError:
            return self._cut(request)
        if write and faults.random.random() < faults.lose_share:
            self.done["answer lost"] += 1
            return self._cut(request)
        return web.Response(status=status, headers=headers, body=content)

    @asynccontextmanager
    async def _ask(self, request: web.Request, body: bytes | None) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        headers = _headers(request.headers)
        async with self._session.request(
            request.method, self._server + request.raw_path, headers=headers, data=body or None
        ) as answer:
            yield answer

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.faults.expire and request.query.get("resourceVersion", "0") not in {"", "0"}:
            return self._refusal(410)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        connection = request.transport
        if connection is None:
            return response
        self._streams.add(connection)
        try:
            async with self._ask(request, None) as answer:
                response.set_status(answer.status)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await self.faults.stalled.wait()
                    await response.write(chunk)
        except (aiohttp.ClientError, ConnectionError):
            return self._cut(request, response)
        finally:
            self._streams.discard(connection)
        return response

    def _refusal(self, code: int) -> web.Response:
        self.done[f"answer {code}"] += 1
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": f"played by the proxy: {code}",
            "reason": _REASONS[code],
            "code": code,
        }
        headers = {"Retry-After": "1"} if code in {429, 503} else {}
        return web.Response(status=code, text=json.dumps(status), content_type="application/json", headers=headers)

    def _cut(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        """Close the connection without an answer, or in the middle of it."""
        if request.transport is not None:
            request.transport.abort()
        return response if response is not None else web.Response(status=502)


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
