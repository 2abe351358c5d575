"""Requests to the API server over aiohttp: bytes in, bytes out, errors as ApiError.

The official client decodes whole objects into generated models: 25 to 90 s for 10,000 pods where narrow structs take
half a second. So it lends us its kubeconfig handling only.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from msgspec import Struct
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from prewarm import __version__
from prewarm.api.names import FIELD_MANAGER
from prewarm.cluster.backoff import Patience, may_repeat
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError, ServerUnreachable, StreamSilent, decode_status
from prewarm.model.intents import Json, Manifest, Resource

_READ_BUFFER = 2**18
"""Bytes that may wait in a stream before the server is slowed down."""
PAGE_SIZE = 500
"""Objects asked for at once, as client-go's pager does."""
_APPLY_PATCH = "application/apply-patch+yaml"
"""Server-side apply; JSON is YAML."""


class Limits(Struct, frozen=True):
    """How patient requests are; all in seconds but `attempts`."""

    connect: float = 10.0
    request: float = 30.0
    """For a whole request that is not a watch."""
    attempts: int = 5
    """Tries of a request that may be repeated."""
    patience: Patience = Patience(first=0.2, longest=10.0)
    """Waits between tries."""


class WatchOptions(Struct, frozen=True):
    """What to watch, from where on, and when to give up on silence."""

    resource_version: str = ""
    initial_events: bool = False
    """Stream the present objects first (KEP-3157): replaces a list."""
    label_selector: str = ""
    field_selector: str = ""
    namespace: str = ""
    """Only this namespace; "" for all."""
    server_timeout: float = 300.0
    """The server ends the watch after this time, up to twice as long, so that not all watches end together."""
    silence: float = 100.0
    """Bookmarks come about every minute: a stream silent for longer is dead although the connection stands."""


class Page(Struct, rename="camel"):
    """The envelope of a list answer."""

    class Metadata(Struct, rename="camel"):
        """metav1.ListMeta."""

        resource_version: str = ""
        continue_token: str = msgspec.field(default="", name="continue")

    metadata: Metadata = msgspec.field(default_factory=Metadata)


class _Kind(Struct):
    name: str = ""


class _Served(Struct):
    """A v1 APIResourceList."""

    resources: list[_Kind] = []


class Client:
    """An HTTP session with one API server. An async context manager.

    Raises (all requests):
        ApiError: if the server refuses, after as many tries as make sense.
        ServerUnreachable: if there is no answer.
        ConfigurationError: if credentials cannot be read.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        limits: Limits | None = None,
        field_manager: str = FIELD_MANAGER,
        compressed: bool = False,
        heard: Callable[[str], None] | None = None,
    ) -> None:
        """`compressed` answers save bandwidth to a distant server and cost both sides time; `heard` gets their Date."""
        self.connection = connection
        self.field_manager = field_manager
        self._limits = limits or Limits()
        self._encoding = "gzip" if compressed else "identity"
        self._heard = heard
        self._session: aiohttp.ClientSession | None = None
        self._reload_lock = asyncio.Lock()
        self._reloads = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            headers={
                "User-Agent": f"prewarm/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": self._encoding,
            },
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect),
            read_bufsize=_READ_BUFFER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """One object."""
        return await self._request("GET", path_of(resource, namespace, name))

    async def version(self) -> bytes:
        """The server's /version."""
        return await self._request("GET", "/version")

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the server has a kind in a version of a group."""
        try:
            body = await self._request("GET", f"/apis/{group}/{version}")
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return any(found.name == plural for found in msgspec.json.decode(body, type=_Served).resources)

    async def list_pages(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE_SIZE,
    ) -> AsyncGenerator[bytes, None]:
        """The pages of a list, each a v1 List as sent.

        Raises:
            ApiError: with `expired` set if the list took so long that the server forgot it: start again.
        """
        parameters = _selectors(label_selector, field_selector) | {"limit": str(limit)}
        while True:
            body = await self._request("GET", path_of(resource, namespace), parameters)
            yield body
            token = msgspec.json.decode(body, type=Page).metadata.continue_token
            if not token:
                return
            parameters["continue"] = token

    async def watch(self, resource: Resource, options: WatchOptions) -> AsyncGenerator[list[bytes], None]:
        """Watch a kind: complete lines of JSON, as many at a time as came together; first none, once the watch stands.

        Ends when the server ends the watch. Not retried: the caller knows from where to go on.

        Raises:
            ServerUnreachable: also if the stream is cut, in the middle of a line or not, or falls silent.
        """
        timeout = options.server_timeout * (1 + random.random())  # noqa: S311 - spreads load, no secret
        parameters = _selectors(options.label_selector, options.field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(timeout))),
        }
        if options.initial_events:
            parameters |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        if options.resource_version:
            parameters["resourceVersion"] = options.resource_version
        path = path_of(resource, options.namespace)
        async with self._send("GET", path, parameters, silence=options.silence) as response:
            yield []
            async for lines in _lines(response.content, options.silence, path):
                yield lines

    async def create(self, resource: Resource, namespace: str, manifest: Manifest, *, repeatable: bool = True) -> bytes:
        """Create an object. A try whose answer got lost makes the next one answer AlreadyExists.

        Not so if others may delete the object meanwhile: then it is made twice, unless `repeatable` is False.
        """
        parameters = {"fieldManager": self.field_manager}
        return await self._request("POST", path_of(resource, namespace), parameters, manifest, repeatable=repeatable)

    async def apply(
        self, resource: Resource, namespace: str, name: str, manifest: Manifest, subresource: str = ""
    ) -> bytes:
        """Server-side apply under our field manager, forced: the fields in it are ours."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **manifest}
        parameters = {"fieldManager": self.field_manager, "force": "true"}
        path = path_of(resource, namespace, name, subresource)
        return await self._request("PATCH", path, parameters, body, content_type=_APPLY_PATCH)

    async def json_patch(self, resource: Resource, namespace: str, name: str, operations: Json) -> bytes:
        """RFC 6902 patch; repeated only when the server says that it was not processed."""
        path = path_of(resource, namespace, name)
        parameters = {"fieldManager": self.field_manager}
        content_type = "application/json-patch+json"
        return await self._request("PATCH", path, parameters, operations, content_type=content_type, repeatable=False)

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Manifest) -> bytes:
        """RFC 7386 patch."""
        path = path_of(resource, namespace, name)
        parameters = {"fieldManager": self.field_manager}
        return await self._request("PATCH", path, parameters, patch, content_type="application/merge-patch+json")

    async def replace(self, resource: Resource, namespace: str, name: str, manifest: Manifest) -> bytes:
        """Update an object; with metadata.resourceVersion only if nobody else has meanwhile (Conflict otherwise)."""
        parameters = {"fieldManager": self.field_manager}
        return await self._request("PUT", path_of(resource, namespace, name), parameters, manifest, repeatable=False)

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> bytes:
        """Delete an object; with `uid` only that one, not a namesake (Conflict otherwise)."""
        options: dict[str, Json] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return await self._request("DELETE", path_of(resource, namespace, name), {}, options)

    async def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Json = None,
        *,
        content_type: str = "application/json",
        repeatable: bool = True,
    ) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(may_repeat(harmless=repeatable)),
            stop=stop_after_attempt(self._limits.attempts),
            wait=self._limits.patience.wait(),
            reraise=True,
        ):
            with attempt:
                async with (
                    _deadline(self._limits.request, f"{method} {path}"),
                    self._send(method, path, parameters or {}, data, content_type) as response,
                ):
                    return await response.read()
        raise AssertionError("retrying ends with a result or an error")

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        data: bytes | None = None,
        content_type: str = "application/json",
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One try, or two if the server refused credentials that have been renewed since."""
        for renewed in (False, True):
            reloads = self._reloads
            async with self._exchange(method, path, parameters, data, content_type, silence) as response:
                if response.status < HTTPStatus.BAD_REQUEST:
                    yield response
                    return
                error = await _refusal(response, f"{method} {path}")
            if error.code != HTTPStatus.UNAUTHORIZED or renewed:
                raise error
            await self._reload(reloads)

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        data: bytes | None,
        content_type: str,
        silence: float | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("Client is used outside of its `async with` block")
        headers = {"Content-Type": content_type} if data is not None else {}
        authorization = await self.connection.authorization()
        if authorization:
            headers["Authorization"] = authorization
        try:
            async with self._session.request(
                method,
                self.connection.server + path,
                params=parameters,
                data=data,
                headers=headers,
                ssl=self.connection.ssl or True,
                proxy=self.connection.proxy,
                server_hostname=self.connection.server_name,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect, sock_read=silence),
            ) as response:
                if self._heard is not None:
                    self._heard(response.headers.get("Date", ""))
                yield response
        except (aiohttp.ClientError, OSError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise ServerUnreachable(f"{method} {self.connection.server}{path}: {words}") from error

    async def _reload(self, seen: int) -> None:
        """Reload credentials once, however many requests were refused together."""
        async with self._reload_lock:
            if self._reloads == seen:
                await self.connection.reload()
                self._reloads += 1


def path_of(resource: Resource, namespace: str, name: str = "", subresource: str = "") -> str:
    """The URL path of a collection or an object; all namespaces if a namespaced kind is given none."""
    parts = ["/apis", resource.group] if resource.group else ["/api"]
    parts.append(resource.version)
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    parts += [part for part in (name, subresource) if part]
    return "/".join(parts)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in pairs.items() if value}


@asynccontextmanager
async def _deadline(seconds: float, request: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ServerUnreachable(f"{request}: no complete answer within {seconds:g} s") from None


async def _refusal(response: aiohttp.ClientResponse, request: str) -> ApiError:
    body = await response.read()
    retry_after = _seconds(response.headers.get("Retry-After", ""))
    return decode_status(body, response.status, request=request, retry_after=retry_after)


def _seconds(retry_after: str) -> float | None:
    """Retry-After as seconds; the header holds seconds or a date (RFC 9110, 10.2.3)."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


async def _lines(content: aiohttp.StreamReader, silence: float, path: str) -> AsyncIterator[list[bytes]]:
    """Complete lines as they come.

    StreamReader.readline refuses lines beyond its buffer; an object may have 1.5 MB.

    Raises:
        ServerUnreachable: if the stream ends within a line or falls silent.
    """
    pending = b""
    try:
        async for chunk in content.iter_any():
            lines = (pending + chunk).split(b"\n")
            pending = lines.pop()
            if lines:
                yield lines
    except aiohttp.SocketTimeoutError as error:
        raise StreamSilent(f"watch of {path}: silent for {silence:g} s") from error
    if pending.strip():
        raise ServerUnreachable(f"watch of {path}: cut in the middle of an object")
