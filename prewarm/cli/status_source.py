"""What `prewarm status` looks at: read once, or anew with every watch event."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec
import typer
from msgspec import Struct

from prewarm.api.image_cache import decode_image_cache
from prewarm.api.node_image import decode_node_images
from prewarm.cli.errors import CommandError
from prewarm.cluster.client import Client, Page, WatchOptions
from prewarm.cluster.errors import ApiError, ServerUnreachable, decode_status
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import IMAGE_CACHES, NODE_IMAGES, Resource
from prewarm.model.nodes import NodeImages
from prewarm.model.workloads import WorkloadKey

_AGAIN_SECONDS = 2.0
"""Wait before the server is asked again that did not answer."""
_CALM_SECONDS = 0.2
"""Events that come within this time are shown together."""
_Key = tuple[str, str]
_Object = Mapping[str, object]


class Target(Struct, frozen=True):
    """What is asked for; without anything all ImageCaches."""

    namespace: str = ""
    cache: str = ""
    workload: WorkloadKey | None = None
    node: str = ""


class Seen(Struct, frozen=True):
    """What was found of a target at one moment (Unix seconds)."""

    caches: Sequence[ImageCache]
    node: NodeImages | None
    at: float


class _Event(Struct):
    type: str
    object: dict[str, object]


async def read(client: Client, target: Target) -> Seen:
    """The present state.

    Raises:
        CommandError: if our kinds are not installed.
        ClusterError: if the cluster refuses or does not answer.
    """
    resource, namespace, selector = _watched(target)
    objects, _ = await _listed(client, resource, namespace, selector)
    return _seen(target, objects)


async def follow(client: Client, target: Target) -> AsyncGenerator[Seen, None]:
    """The present state, and again after every change, until cancelled; trouble with the server is told once.

    Raises:
        CommandError: if our kinds are not installed.
        ClusterError: if the cluster refuses, or does not answer at first.
    """
    resource, namespace, selector = _watched(target)
    began = told = False
    while True:
        try:
            objects, version = await _listed(client, resource, namespace, selector)
            began, told = True, False
            yield _seen(target, objects)
            options = WatchOptions(resource_version=version, namespace=namespace, field_selector=selector)
            async for lines in client.watch(resource, options):
                if [line for line in lines if line and _apply(objects, line)]:
                    yield _seen(target, objects)
                    await asyncio.sleep(_CALM_SECONDS)
        except (ServerUnreachable, ApiError) as error:
            if isinstance(error, ApiError) and error.expired:
                continue
            if isinstance(error, ApiError) or not began:
                raise
            if not told:
                typer.echo(f"prewarm: {error}: trying again", err=True)
            told = True
            await asyncio.sleep(_AGAIN_SECONDS)


def _watched(target: Target) -> tuple[Resource, str, str]:
    """Kind, namespace and field selector of what is watched: no more than the asker may have to see."""
    if target.node:
        return NODE_IMAGES, "", f"metadata.name={target.node}"
    selector = f"metadata.name={target.cache}" if target.cache else ""
    return IMAGE_CACHES, target.namespace, selector


async def _listed(client: Client, resource: Resource, namespace: str, selector: str) -> tuple[dict[_Key, _Object], str]:
    objects: dict[_Key, _Object] = {}
    version = ""
    try:
        async for page in client.list_pages(resource, namespace=namespace, field_selector=selector):
            version = msgspec.json.decode(page, type=Page).metadata.resource_version
            items = msgspec.json.decode(page, type=dict[str, object]).get("items")
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict):
                    objects[_key(item)] = item
    except ApiError as error:
        if error.not_found:
            raise CommandError(
                f"the server does not know {resource.kind}s: prewarm crds prints what to install"
            ) from None
        raise
    return objects, version


def _apply(objects: dict[_Key, _Object], line: bytes) -> bool:
    """Take a watch event; whether it is one that people see.

    Raises:
        ApiError: if the server says that it cannot go on from here.
    """
    event = msgspec.json.decode(line, type=_Event)
    if event.type == "ERROR":
        raise decode_status(msgspec.json.encode(event.object), 500, request="watch")
    if event.type == "BOOKMARK":
        return False
    if event.type == "DELETED":
        objects.pop(_key(event.object), None)
    else:
        objects[_key(event.object)] = event.object
    return True


def _key(item: _Object) -> _Key:
    metadata = item.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("namespace", "")), str(found.get("name", ""))


def _seen(target: Target, objects: Mapping[_Key, _Object]) -> Seen:
    if target.node:
        found = objects.get(("", target.node))
        node = None if found is None else decode_node_images(found)
        return Seen((), node, time.time())
    caches = sorted(map(decode_image_cache, objects.values()), key=lambda cache: cache.key)
    if target.workload is not None:
        caches = [cache for cache in caches if cache.workload == str(target.workload)]
    if target.cache:
        caches = [cache for cache in caches if cache.key == (target.namespace, target.cache)]
    return Seen(caches, None, time.time())
