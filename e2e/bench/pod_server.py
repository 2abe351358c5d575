"""An API server that serves any number of realistic pods, without keeping them, and tells of changes on demand.

Lists come in pages or streamed through a watch; a watch with a resourceVersion gets `--events` changes and ends.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiohttp import web

_BATCH = 100
_APPS = 500
_NODES = 2500
_SAMPLE = Path(__file__).with_name("pod.json")
_TEMPLATE = json.dumps(json.loads(_SAMPLE.read_text(encoding="utf-8")), separators=(",", ":"))
"""A running pod of a Deployment as an API server sends it, managedFields included; names between @ are filled in."""


def pod(number: int, version: int) -> str:
    """The JSON of one pod; a higher version is ready a second later."""
    app = number % _APPS
    return (
        _TEMPLATE.replace("@APP@", str(app))
        .replace("@TEAM@", str(app % 50))
        .replace("@TOKEN@", f"{number:05x}")
        .replace("@UID@", f"{number:08x}-1111-4222-8333-444455556666")
        .replace("@VERSION@", str(version))
        .replace("@NODE@", str(number % _NODES))
        .replace("@SECOND@", f"{version % 60:02d}")
    )


class PodServer:
    """Serves /api/v1/pods."""

    def __init__(self, pods: int, events: int) -> None:
        self._pods = pods
        self._events = events

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A list, or a watch."""
        if request.query.get("watch") in {"true", "True", "1"}:
            return await self._watch(request)
        start = int(request.query.get("continue") or 0)
        end = min(self._pods, start + int(request.query.get("limit") or self._pods))
        metadata = {"resourceVersion": "1", **({"continue": str(end)} if end < self._pods else {})}
        items = ",".join(pod(number, 1) for number in range(start, end))
        body = f'{{"kind":"PodList","apiVersion":"v1","metadata":{json.dumps(metadata)},"items":[{items}]}}'
        return web.Response(body=body.encode(), content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            for lines in self._lines(streamed=request.query.get("sendInitialEvents") == "true"):
                await response.write(lines.encode())
        except ConnectionResetError:
            pass
        return response

    def _lines(self, *, streamed: bool) -> Iterator[str]:
        if streamed:
            for start in range(0, self._pods, _BATCH):
                numbers = range(start, min(start + _BATCH, self._pods))
                yield "".join(_event("ADDED", pod(number, 1)) for number in numbers)
            end = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
            yield _event("BOOKMARK", json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": end}))
            return
        for start in range(0, self._events, _BATCH):
            numbers = range(start, min(start + _BATCH, self._events))
            yield "".join(_event("MODIFIED", pod(number % self._pods, number + 2)) for number in numbers)


def _event(kind: str, body: str) -> str:
    return f'{{"type":"{kind}","object":{body}}}\n'


async def _serve(pods: int, events: int) -> None:
    server = PodServer(pods, events)
    application = web.Application()
    application.router.add_get("/api/v1/pods", server.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed; the port is printed first."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.pod_server")
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=10_000)
    parsed = parser.parse_args(arguments)
    asyncio.run(_serve(parsed.pods, parsed.events))


if __name__ == "__main__":
    main()
