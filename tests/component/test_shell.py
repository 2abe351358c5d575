"""kopf itself against a server that has it end: the controller lives on, and kopf with it."""

import asyncio
import threading

import pytest

from prewarm.controller import shell
from prewarm.controller.shell import OwnEvent, Shell
from prewarm.model.intents import IMAGE_CACHES
from tests.support.controlling import image_cache
from tests.support.fake_api_server import FakeApiServer, Refuse
from tests.support.manifests import Object

TIMEOUT_SECONDS = 30.0


def kinds(*named: tuple[str, str, bool]) -> Object:
    """A group's kinds by plural, kind, and whether they are namespaced."""
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "resources": [
            {"name": plural, "kind": kind, "singularName": kind.lower(), "namespaced": namespaced, "verbs": verbs}
            for plural, kind, namespaced in named
        ]
    }


def group(name: str, version: str) -> Object:
    return {"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}}


DISCOVERY: dict[str, Object] = {
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
    "/api": {"versions": ["v1"]},
    "/api/v1": kinds(("namespaces", "Namespace", False), ("events", "Event", True)),
    "/apis": {"groups": [group("prewarm.dev", "v1alpha1"), group("apiextensions.k8s.io", "v1")]},
    "/apis/prewarm.dev/v1alpha1": kinds(
        ("imagecaches", "ImageCache", True), ("prewarmpolicies", "PrewarmPolicy", False)
    ),
    "/apis/apiextensions.k8s.io/v1": kinds(("customresourcedefinitions", "CustomResourceDefinition", False)),
}
"""What kopf asks for before it watches anything."""


async def test_kopf_that_ends_on_its_own_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when a watch is answered with 410 in place of an event, or after a minute without an API server."""
    monkeypatch.setattr(shell, "RESTART_SECONDS", 0.0)
    heard: set[str] = set()
    told = asyncio.Event()

    def listen(event: OwnEvent) -> None:
        heard.add(event.name)
        told.set()

    async def hears(name: str) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while name not in heard:
                told.clear()
                await told.wait()

    assert shell.operator_settings().process.ultimate_exiting_timeout is None, "kopf would kill this process"
    async with FakeApiServer.running() as server:
        server.documents.update(DISCOVERY)
        running = asyncio.create_task(Shell(server.connection(), listen).run(), name="shell")
        try:
            server.put(IMAGE_CACHES, image_cache("first"))
            await hears("first")
            watches = server.count("watch", IMAGE_CACHES)
            server.fail_next("watch", IMAGE_CACHES, Refuse(410, "Expired", "too old resource version"))
            server.cut_watches()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await server.until(lambda: server.count("watch", IMAGE_CACHES) > watches + 1)
            server.put(IMAGE_CACHES, image_cache("second"))
            await hears("second")
            assert sum(thread.name == "kopf" for thread in threading.enumerate()) == 1
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert not any(thread.name == "kopf" for thread in threading.enumerate())
