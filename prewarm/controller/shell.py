"""The kopf operator: start-up and clean-up, and a watch of what people write for us. The only module that imports kopf.

kopf has a thread and an event loop of its own. In ours it would take over the signal handlers and, when it ends, cancel
every task that it did not know (kopf's run_tasks). It watches hand-written ImageCaches and PrewarmPolicies, which are
few; everything in numbers comes through our reflectors. Its handlers return nothing and take no patch: kopf writes
nothing, to no object.
"""

import asyncio
import contextlib
import datetime as dt
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import kopf
import structlog
from msgspec import Struct

from prewarm.api.names import GROUP, LABEL_PLANNED, VERSION
from prewarm.cluster.connection import Connection

FINALIZER = f"{GROUP}/kopf"
"""Never set, but kopf takes its finalizer off objects that it sees: the default name would be other operators'."""
CREDENTIALS_SECONDS = 300.0
"""How long kopf uses credentials before it asks for them again: service account tokens rotate."""
RESTART_SECONDS = 15.0
INACTIVITY_SECONDS = 1800.0
"""As long as the API server lets a watch live at least (--min-request-timeout)."""

log = structlog.stdlib.get_logger(__name__)


class OwnEvent(Struct, frozen=True):
    """A watch event about an object of ours that people write."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    deleted: bool


Listener = Callable[[OwnEvent], None]


@dataclass(frozen=True, kw_only=True)
class _Credentials(kopf.ConnectionInfo):
    """Our connection's credentials in kopf's form, its TLS context included."""

    context: ssl.SSLContext | None = None

    def as_ssl_context(self) -> ssl.SSLContext:
        """The TLS context that our own requests use."""
        return self.context if self.context is not None else ssl.create_default_context()


class Shell:
    """Runs kopf in a thread until stopped."""

    def __init__(self, connection: Connection, listener: Listener, *, stop_seconds: float = 5.0) -> None:
        """`listener` is called in the event loop that `run` runs in."""
        self._connection = connection
        self._listener = listener
        self._stop_seconds = stop_seconds

    async def run(self) -> None:
        """Run the operator; cancel to stop it.

        It is a witness and a trigger, nothing depends on it: if it ends by itself, as kopf does after a minute without
        an API server, it is started again.
        """
        while True:
            try:
                await self._once()
            except Exception as error:  # noqa: BLE001 - whatever ended kopf, the controller goes on
                log.warning("kopf ended, starting it again", problem=repr(error), seconds=RESTART_SECONDS)
            await asyncio.sleep(RESTART_SECONDS)

    async def _once(self) -> None:
        """One life of the operator.

        Raises:
            Exception: what made kopf end on its own.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        life = _Life()
        thread = threading.Thread(target=self._serve, args=(loop, life, ended), name="kopf", daemon=True)
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            life.end()
            await asyncio.to_thread(thread.join, self._stop_seconds)
            if thread.is_alive():
                log.warning("kopf did not stop in time", seconds=self._stop_seconds)

    def _serve(self, loop: asyncio.AbstractEventLoop, life: "_Life", ended: "asyncio.Future[None]") -> None:
        failure: BaseException | None = None
        try:
            life.run(
                kopf.operator(
                    registry=self._registry(loop),
                    settings=operator_settings(),
                    clusterwide=True,
                    standalone=True,
                    stop_flag=life.stop,
                )
            )
        except BaseException as error:  # noqa: BLE001 - handed over to the supervising task
            failure = error

        def tell() -> None:
            if ended.done():
                return
            if failure is not None:
                # Its own cancellation must not look like ours.
                broken = failure if isinstance(failure, Exception) else RuntimeError(f"kopf ended with {failure!r}")
                ended.set_exception(broken)
            else:
                ended.set_result(None)

        if not loop.is_closed():
            loop.call_soon_threadsafe(tell)

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        connection, listener = self._connection, self._listener

        @kopf.on.login(registry=registry)
        async def login(**_: object) -> kopf.ConnectionInfo:
            # Credential plugins hold locks of our loop.
            asked = asyncio.run_coroutine_threadsafe(connection.authorization(), loop)
            authorization = await asyncio.wrap_future(asked)
            scheme, _separator, token = authorization.partition(" ")
            expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=CREDENTIALS_SECONDS)
            return _Credentials(
                server=connection.server,
                scheme=scheme or None,
                token=token or None,
                proxy_url=connection.proxy,
                default_namespace=connection.namespace,
                expiration=expires,
                context=connection.ssl,
            )

        def tell(kind: str, type_: str, namespace: str | None, name: str, uid: str, generation: int) -> None:
            event = OwnEvent(kind, namespace or "", name, uid, generation, type_ == "DELETED")
            if not loop.is_closed():
                loop.call_soon_threadsafe(listener, event)

        for plural, kind in (("imagecaches", "ImageCache"), ("prewarmpolicies", "PrewarmPolicy")):

            @kopf.on.event(GROUP, VERSION, plural, id=f"{plural}-seen", registry=registry, param=kind)
            async def seen(
                *,
                type: str,  # noqa: A002 - kopf passes it by this name
                namespace: str | None,
                name: str,
                uid: str,
                meta: kopf.Meta,
                param: str = "",
                **_: object,
            ) -> None:
                tell(param, type, namespace, name, uid, int(meta.get("generation", 0)))

        return registry


class _Life:
    """The event loop of one life of the operator, and the wish to end it.

    The flag is of that loop: for one of threading, kopf has a thread wait, for which the loop's end would wait in turn
    when kopf ends by itself.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()

    def run(self, operator: Coroutine[object, object, None]) -> None:
        """Run the operator; returns or raises as it does."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(operator)

    def end(self) -> None:
        """Ask for the end, from any thread; nothing happens if it has come."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.stop.set)


def operator_settings() -> kopf.OperatorSettings:
    """Kopf's settings; each differs from its default for a reason that stands here."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    # Events are posted by our writer, counted and bounded.
    settings.posting.enabled = False
    # Namespaces and CRDs do not have to be watched for kinds that are known and clusterwide.
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # Planned ImageCaches come in numbers and through our reflector.
    settings.watching.label_selectors["imagecaches"] = f"!{LABEL_PLANNED}"
    settings.watching.chunk_size = 500
    # After it kopf lists all objects again, and handles each: at rest nothing comes for longer than its 70 seconds.
    settings.watching.inactivity_timeout = INACTIVITY_SECONDS
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.queueing.worker_limit = 10
    settings.execution.max_workers = 1
    # After it, kopf ends the whole process with SIGKILL: lease, memory and pulls are not kopf's to end.
    settings.process.ultimate_exiting_timeout = None
    return settings
