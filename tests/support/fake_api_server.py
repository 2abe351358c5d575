"""A small API server in this process that keeps objects, lists and watches them, and fails on demand.

No admission, no server-side apply semantics, no garbage collection: what needs those is tested in `e2e`.
"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from prewarm.cluster.connection import Connection
from prewarm.cluster.credentials import TokenSource
from prewarm.model.intents import Resource

Object = dict[str, Any]
Key = tuple[str, str]
_WITH_GROUP = frozenset({"apps.kruise.io"})


@dataclass(frozen=True)
class Refuse:
    """Answer with an error Status instead."""

    code: int
    reason: str = ""
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Send:
    """In a watch: these bytes first, then as usual."""

    data: bytes


@dataclass(frozen=True)
class Cut:
    """In a watch: these bytes, then the connection is cut."""

    data: bytes = b""


@dataclass(frozen=True)
class Stall:
    """In a watch: nothing, with the connection open."""


@dataclass(frozen=True)
class Hang:
    """Never answer, or not before it is released."""

    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Garble:
    """Answer 200 with a proxy's page."""


@dataclass(frozen=True)
class Lose:
    """Do what was asked, and cut the connection instead of answering."""


Fault = Refuse | Send | Cut | Stall | Hang | Garble | Lose


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    verb: str
    plural: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float


class FakeApiServer:
    """Serves any resource under /api and /apis.

    Attributes:
        page_size: items of a page at most.
        streams_lists: whether sendInitialEvents is understood.
        token: if set, the only bearer token that is accepted.
        ending: namespaces that are being terminated: nothing can be created there.
        documents: answers at paths that name no resource, such as those of discovery.
        missing: plurals that are not served (404); of some groups with the group, see `place_of`.
        requests: everything that was asked.
        most_at_once: largest number of requests other than watches in progress at the same time.
    """

    def __init__(self) -> None:
        self.page_size = 500
        self.streams_lists = True
        self.token = ""
        self.ending: set[str] = set()
        self.documents: dict[str, Object] = {}
        self.missing: set[str] = set()
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._now = 0
        self._objects: dict[str, dict[Key, Object]] = defaultdict(dict)
        self._history: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._forgotten: dict[str, int] = defaultdict(int)
        self._watches: dict[str, list[asyncio.Queue[Fault | bytes]]] = defaultdict(list)
        self._faults: dict[tuple[str, str], deque[Fault]] = defaultdict(deque)
        self._in_progress = 0
        self._happened = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator["FakeApiServer"]:
        """A server on a free port of the loopback interface."""
        server = cls()
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", server._handle)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        try:
            yield server
        finally:
            server.cut_watches()
            await runner.cleanup()

    def connection(self, tokens: TokenSource | None = None) -> Connection:
        """How to reach it."""
        return Connection(self.url, tokens=tokens)

    def put(self, resource: Resource, value: Object, *, silent: bool = False) -> Object:
        """Store an object and tell the watches; `silent`: as if that part of the history had been compacted away."""
        key = _key(value)
        stored: Object = json.loads(json.dumps(value))
        known = self._objects[place_of(resource)].get(key)
        self._now += 1
        stored["metadata"]["resourceVersion"] = str(self._now)
        stored["metadata"].setdefault("uid", known["metadata"]["uid"] if known else f"uid-{self._now}")
        self._objects[place_of(resource)][key] = stored
        self._tell(place_of(resource), "MODIFIED" if known else "ADDED", stored, silent)
        return stored

    def remove(self, resource: Resource, namespace: str, name: str, *, silent: bool = False) -> None:
        """Delete an object and tell the watches."""
        gone = self._objects[place_of(resource)].pop((namespace, name))
        self._now += 1
        gone["metadata"]["resourceVersion"] = str(self._now)
        self._tell(place_of(resource), "DELETED", gone, silent)

    def forget(self, resource: Resource) -> None:
        """Compact the history: watches from before now get 410."""
        self._now += 1
        self._forgotten[place_of(resource)] = self._now
        self._history[place_of(resource)].clear()

    def objects(self, resource: Resource) -> Mapping[Key, Object]:
        """What is stored."""
        return self._objects[place_of(resource)]

    def fail_next(self, verb: str, resource: Resource, *faults: Fault) -> None:
        """Let the next requests of this kind (list, watch, get, create, update, patch, delete) fail, one fault each."""
        self._faults[verb, place_of(resource)].extend(faults)

    def inject(self, resource: Resource, fault: Fault) -> None:
        """Let a fault happen in every open watch of a resource."""
        for queue in self._watches[place_of(resource)]:
            queue.put_nowait(fault)

    def cut_watches(self) -> None:
        """End all watches."""
        for queues in self._watches.values():
            for queue in queues:
                queue.put_nowait(Cut())

    def count(self, verb: str, resource: Resource) -> int:
        """Requests of a kind so far."""
        return len(self.asked(verb, resource))

    def asked(self, verb: str, resource: Resource) -> list[Request]:
        """Requests of a kind so far."""
        return [request for request in self.requests if (request.verb, request.plural) == (verb, place_of(resource))]

    def watching(self, resource: Resource) -> bool:
        """Whether somebody watches and has been sent everything so far."""
        queues = self._watches[place_of(resource)]
        return bool(queues) and all(queue.empty() for queue in queues)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once a condition on this server holds; looked at whenever a request comes or a watch is served."""
        async with asyncio.timeout(20), self._happened:
            await self._happened.wait_for(condition)

    def _tell(self, plural: str, kind: str, value: Object, silent: bool) -> None:
        if silent:
            return
        line = json.dumps({"type": kind, "object": value}).encode() + b"\n"
        self._history[plural].append((self._now, line))
        for queue in self._watches[plural]:
            queue.put_nowait(line)

    async def _notify(self) -> None:
        async with self._happened:
            self._happened.notify_all()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path in self.documents:
            return web.json_response(self.documents[request.path])
        plural, namespace, name = _taken_apart(request.path)
        watching = request.query.get("watch") == "true"
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(request.method) or ("watch" if watching else "get" if name else "list")
        loop_time = asyncio.get_running_loop().time()
        body = await request.read()
        self.requests.append(
            Request(verb, plural, request.path, dict(request.query), dict(request.headers), body, loop_time)
        )
        await self._notify()
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(Refuse(401, "Unauthorized", "Unauthorized"))
        if plural in self.missing:
            return _status(Refuse(404, "NotFound", "the server could not find the requested resource"))
        faults = self._faults[verb, plural]
        fault = faults.popleft() if faults else None
        if isinstance(fault, Refuse):
            return _status(fault)
        if isinstance(fault, Garble):
            return web.Response(text="<html>Please log in</html>", content_type="text/html")
        if isinstance(fault, Hang):
            await fault.released.wait()
        if watching:
            return await self._watch(request, plural, fault)
        self._in_progress += 1
        self.most_at_once = max(self.most_at_once, self._in_progress)
        try:
            await asyncio.sleep(0)
            applied = verb == "patch" and "apply-patch" in request.headers["Content-Type"]
            new = verb == "create" or (applied and (namespace, name) not in self._objects[plural])
            if new and namespace in self.ending:
                return _status(_ending(plural, name or json.loads(body)["metadata"]["name"], namespace))
            answer = self._answer(verb, plural, namespace, name, request, body)
            if isinstance(fault, Lose) and request.transport is not None:
                request.transport.abort()
            return answer
        finally:
            self._in_progress -= 1

    def _answer(
        self, verb: str, plural: str, namespace: str, name: str, request: web.Request, body: bytes
    ) -> web.Response:
        objects = self._objects[plural]
        name_of_kind, _, group = plural.partition(".")
        resource = Resource(group, "v1", name_of_kind, "")
        if verb == "list":
            return self._page(plural, int(request.query.get("continue", "0")))
        if verb == "create":
            value = json.loads(body)
            value["metadata"].setdefault("namespace", namespace)
            if _key(value) in objects:
                return _status(Refuse(409, "AlreadyExists", "already exists"))
            return web.json_response(self.put(resource, value), status=201)
        known = objects.get((namespace, name))
        if verb == "patch" and "apply-patch" in request.headers["Content-Type"]:
            value = json.loads(body)
            value["metadata"] = {**value.get("metadata", {}), "name": name, "namespace": namespace}
            return web.json_response(self.put(resource, {**(known or {}), **value}))
        if known is None:
            return _status(Refuse(404, "NotFound", "not found"))
        if verb == "get":
            return web.json_response(known)
        if verb == "delete":
            wanted = json.loads(body).get("preconditions", {}).get("uid")
            if wanted and wanted != known["metadata"]["uid"]:
                return _status(Refuse(409, "Conflict", "Precondition failed: UID in precondition"))
            self.remove(resource, namespace, name)
            return web.json_response(known)
        value = json.loads(body)
        if verb == "update":
            if value["metadata"].get("resourceVersion") not in {None, known["metadata"]["resourceVersion"]}:
                return _status(Refuse(409, "Conflict", "the object has been modified"))
            return web.json_response(self.put(resource, value))
        if isinstance(value, list):
            patched = _patched(known, value)
            if patched is None:
                return _status(Refuse(422, "Invalid", "the server rejected our request due to an error in our request"))
            return web.json_response(self.put(resource, patched))
        return web.json_response(self.put(resource, _merged(known, value)))

    def _page(self, plural: str, start: int) -> web.Response:
        items = list(self._objects[plural].values())
        end = start + self.page_size
        metadata = {"resourceVersion": str(self._now)}
        if end < len(items):
            metadata["continue"] = str(end)
        return web.json_response({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[start:end]})

    async def _watch(self, request: web.Request, plural: str, fault: Fault | None) -> web.StreamResponse:
        initial = request.query.get("sendInitialEvents") == "true"
        if initial and not self.streams_lists:
            return _status(Refuse(422, "Invalid", "sendInitialEvents is forbidden for watch"))
        version = int(request.query.get("resourceVersion") or 0)
        queue: asyncio.Queue[Fault | bytes] = asyncio.Queue()
        if fault is not None:
            queue.put_nowait(fault)
        if initial:
            for value in self._objects[plural].values():
                queue.put_nowait(json.dumps({"type": "ADDED", "object": value}).encode() + b"\n")
            queue.put_nowait(self._bookmark({"k8s.io/initial-events-end": "true"}))
        elif version < self._forgotten[plural]:
            queue.put_nowait(_error_event(410, "Expired", "too old resource version"))
        else:
            for at, line in self._history[plural]:
                if at > version:
                    queue.put_nowait(line)
        self._watches[plural].append(queue)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            await self._serve(request, response, queue)
        except ConnectionResetError:
            pass
        finally:
            self._watches[plural].remove(queue)
        return response

    async def _serve(
        self, request: web.Request, response: web.StreamResponse, queue: "asyncio.Queue[Fault | bytes]"
    ) -> None:
        while True:
            await self._notify()
            item = await queue.get()
            match item:
                case bytes():
                    await response.write(item)
                case Send(data):
                    await response.write(data)
                case Cut(data):
                    if data:
                        await response.write(data)
                    if request.transport is not None:
                        request.transport.close()
                    return
                case _:
                    await asyncio.Event().wait()

    def _bookmark(self, annotations: Mapping[str, str]) -> bytes:
        metadata = {"resourceVersion": str(self._now), "annotations": dict(annotations)}
        return json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode() + b"\n"


def _merged(known: Object, patch: Object) -> Object:
    """RFC 7386; a strategic merge patch is taken for one, so lists are replaced."""
    merged = dict(known)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


def _patched(known: Object, operations: list[Object]) -> Object | None:
    """RFC 6902 with the operations "test" and "remove"; None if a test fails."""
    patched: Object = json.loads(json.dumps(known))
    for operation in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = patched
        for parent in parents:
            place = place.get(parent, {})
        if last not in place or (operation["op"] == "test" and place[last] != operation["value"]):
            return None
        if operation["op"] == "remove":
            del place[last]
    return patched


def _error_event(code: int, reason: str, message: str) -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def _ending(plural: str, name: str, namespace: str) -> Refuse:
    """As Kubernetes 1.36's admission plugin NamespaceLifecycle answers."""
    because = f"namespace {namespace} is being terminated"
    return Refuse(
        403,
        "Forbidden",
        f'{plural} "{name}" is forbidden: unable to create new content in namespace {namespace} '
        "because it is being terminated",
        details={
            "name": name,
            "kind": plural,
            "causes": [{"reason": "NamespaceTerminating", "message": because, "field": "metadata.namespace"}],
        },
    )


def _status(refusal: Refuse) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": refusal.code,
        "reason": refusal.reason,
        "message": refusal.message,
        "details": dict(refusal.details),
    }
    return web.json_response(body, status=refusal.code, headers=dict(refusal.headers))


def _taken_apart(path: str) -> tuple[str, str, str]:
    """Plural, namespace and name of a resource path."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    group = "" if parts[0] == "api" else parts[1]
    plural = place_of(Resource(group, "", rest[0], "")) if rest else ""
    return (plural, namespace, rest[1] if len(rest) > 1 else "")


def place_of(resource: Resource) -> str:
    """Where objects of a kind are kept: its plural, with the group where two groups have the same."""
    return f"{resource.plural}.{resource.group}" if resource.group in _WITH_GROUP else resource.plural


def _key(value: Object) -> Key:
    metadata = value["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
