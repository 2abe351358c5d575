"""/metrics, /healthz and /readyz over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Health = Callable[[], str]
"""Says what is wrong, in one line; "" if nothing is."""


class Probes(Struct, frozen=True):
    """The two questions of a kubelet's probes."""

    live: Health
    """Why the process should be restarted."""
    ready: Health
    """Why the instance cannot take over yet."""


def build_application(registry: CollectorRegistry, probes: Probes) -> web.Application:
    """The application behind the three paths."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    def probe(health: Health) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            problem = health()
            return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

        return answer

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", probe(probes.live))
    application.router.add_get("/readyz", probe(probes.ready))
    return application


@asynccontextmanager
async def serve(host: str, port: int, registry: CollectorRegistry, probes: Probes) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port that was taken.

    Raises:
        OSError: if the address cannot be bound.
    """
    runner = web.AppRunner(
        build_application(registry, probes), access_log=None, handle_signals=False, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        addresses = runner.addresses
        yield int(addresses[0][1]) if addresses else port
    finally:
        await runner.cleanup()
