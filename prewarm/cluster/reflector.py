"""Keeps one kind in step with the API server: list, watch, and list again once the server has forgotten our place."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
import structlog
from msgspec import Struct
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from prewarm.api.names import GROUP
from prewarm.cluster.backoff import Patience
from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.errors import ApiError, ClusterError, ServerUnreachable, StreamSilent
from prewarm.cluster.feeds import Feed
from prewarm.model.snapshot import ObjectKey

_LOG = structlog.get_logger(__name__)
_STREAMING_REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.NOT_IMPLEMENTED,
    }
)
"""How servers answer sendInitialEvents: 422 without the WatchList gate, 500 with an etcd too old for it."""
_SHORT_WATCH_SECONDS = 1.0
"""A watch that ended sooner and brought nothing is a failure: watching again at once would be a busy loop."""


class ReflectorOptions(Struct, frozen=True):
    """How a kind is read; seconds."""

    streamed: bool = True
    """Stream the first objects through the watch (KEP-3157) where the server can; else list in pages."""
    silence: float = 100.0
    server_timeout: float = 300.0
    patience: Patience = Patience(first=0.3, longest=30.0)


@dataclass(slots=True)
class ReflectorCounters:
    """What a reflector has done; the controller exports it as metrics."""

    lists: int = 0
    """Times that everything was read anew."""
    events: int = 0
    """Objects that came through watches."""
    bookmarks: int = 0
    errors: int = 0
    vanished: int = 0
    """Objects found missing by a new list: their deletion was never seen."""


class Reflector:
    """Feeds one kind from the API server for as long as `run` runs.

    Attributes:
        synced: set once everything was read the first time, or a kind of another project found absent.
        present: set while the server has the kind.
        in_step: set while everything is known and a watch stands that brings what comes.
        counters: what it has done.
    """

    def __init__(
        self,
        client: Client,
        feed: Feed,
        *,
        options: ReflectorOptions | None = None,
        only_beside: Sequence["Reflector"] = (),
    ) -> None:
        """`only_beside`: nothing is read until one of these kinds is there."""
        self.feed = feed
        self.name = f"{feed.resource.plural}.{feed.resource.group}" if feed.optional else feed.resource.plural
        self.synced = asyncio.Event()
        self.present = asyncio.Event()
        self.in_step = asyncio.Event()
        self.counters = ReflectorCounters()
        self._client = client
        self._options = options or ReflectorOptions()
        self._streamed = self._options.streamed
        self._version = ""
        self._complaint = ""
        self._only_beside = tuple(only_beside)

    async def run(self) -> None:
        """List and watch until cancelled; trouble with the server is logged once, counted, and tried again.

        A kind of another project that the server does not have is looked for again after each wait.
        """
        await self._wanted()
        while True:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(ClusterError),
                wait=self._options.patience.wait(),
                before_sleep=self._complain,
                reraise=True,
            ):
                with attempt:
                    await self._session()

    async def _wanted(self) -> None:
        """Return once one of the kinds is there beside which this one matters."""
        for other in self._only_beside:
            await other.synced.wait()
        if not self._only_beside or any(other.present.is_set() for other in self._only_beside):
            return
        self.synced.set()
        waiting = [
            asyncio.create_task(other.present.wait(), name=f"wait for {other.name}") for other in self._only_beside
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _session(self) -> None:
        """One watch, after a list if need be. Returns if it got anywhere, else raises."""
        try:
            await self._read()
        except ApiError as error:
            if self._is_absence(error):
                self._absent()
            raise

    def _is_absence(self, error: ApiError) -> bool:
        """Whether a kind of another project is not served, or never was ours to read."""
        refused = error.code == HTTPStatus.FORBIDDEN and not self.present.is_set()
        return self.feed.optional and (error.not_found or refused)

    def _absent(self) -> None:
        """Forget the objects of a kind that the server does not have (any more) in any version."""
        self._version = ""
        if not self.feed.try_next_version():
            self.present.clear()
            self.counters.vanished += self.feed.keep_only(())
            self.synced.set()

    async def _read(self) -> None:
        if not self._version and not self._streamed:
            await self._list()
        started = time.monotonic()
        before = self.counters.events + self.counters.bookmarks
        try:
            await self._watch()
        except ApiError as error:
            if error.expired:
                self._version = ""
            elif not self._version and self._streamed and error.code in _STREAMING_REFUSED:
                self._read_pages(error.message)
                return
            raise
        except ServerUnreachable as error:
            if not self._version and isinstance(error, StreamSilent):
                self._read_pages(str(error))
            if self.counters.events + self.counters.bookmarks == before:
                raise
            self.counters.errors += 1
            return
        if not self._version:
            self._read_pages("the watch ended without a word on the first objects being complete")
        brought = self.counters.events + self.counters.bookmarks - before
        if not brought and time.monotonic() - started < _SHORT_WATCH_SECONDS:
            raise ServerUnreachable(f"watch of {self.name}: ended at once")

    def _read_pages(self, why: str) -> None:
        if self._streamed:
            self._streamed = False
            _LOG.info("server does not stream lists, reading pages", kind=self.name, reason=why)

    async def _list(self) -> None:
        """Read all pages; what they do not name any more is removed."""
        keys: set[ObjectKey] = set()
        version = ""
        self.counters.lists += 1
        pages = self._client.list_pages(self.feed.resource, field_selector=self.feed.field_selector)
        async with aclosing(pages):
            async for page in pages:
                try:
                    found, version = self.feed.load(page)
                except msgspec.DecodeError as error:
                    raise ServerUnreachable(f"list of {self.name}: the answer is no list: {error}") from error
                keys.update(found)
                await asyncio.sleep(0)
        self._complete(keys, version)

    async def _watch(self) -> None:
        """Take events until the server ends the watch; from the beginning if nothing is known yet."""
        seen: set[ObjectKey] | None = None
        if not self._version:
            seen = set()
            self.counters.lists += 1
        options = WatchOptions(
            resource_version=self._version,
            initial_events=seen is not None,
            field_selector=self.feed.field_selector,
            server_timeout=self._options.server_timeout,
            silence=self._options.silence,
        )
        stream = self._client.watch(self.feed.resource, options)
        try:
            async with aclosing(stream):
                async for lines in stream:
                    for line in lines:
                        if line:
                            seen = self._take(line, seen)
                    if seen is None:
                        self.in_step.set()
        finally:
            self.in_step.clear()

    def _take(self, line: bytes, seen: set[ObjectKey] | None) -> set[ObjectKey] | None:
        """Take one event. `seen` collects the keys of a streamed list, None once that is over."""
        try:
            step = self.feed.take(line, listed=seen is not None)
        except msgspec.DecodeError as error:
            self._version = ""
            raise ServerUnreachable(f"watch of {self.name}: sent something that is no event: {error}") from error
        if step.error is not None:
            raise step.error
        if step.key is not None:
            self.counters.events += 1
            if seen is not None:
                seen.add(step.key)
        else:
            self.counters.bookmarks += 1
        if seen is None:
            self._version = step.resource_version or self._version
            self._content()
            return None
        if step.initial_end:
            self._complete(seen, step.resource_version)
            return None
        return seen

    def _complete(self, keys: set[ObjectKey], version: str) -> None:
        """Everything was read."""
        self.counters.vanished += self.feed.keep_only(keys)
        self._version = version
        self.present.set()
        self.synced.set()
        self._content()

    def _say_absent(self) -> None:
        words = "not served"
        if self._complaint != words and self.synced.is_set() and not self.present.is_set():
            self._complaint = words
            _LOG.info("the server does not have this kind, looking again now and then", kind=self.name)

    def _content(self) -> None:
        if self._complaint:
            self._complaint = ""
            _LOG.info("in step with the server again", kind=self.name)

    def _complain(self, state: RetryCallState) -> None:
        """Say what is wrong when it changes, not at each try."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ApiError) and self.feed.optional and error.not_found:
            self._say_absent()
            return
        self.counters.errors += 1
        if isinstance(error, ApiError) and error.expired:
            return
        words = str(error)
        if isinstance(error, ApiError) and error.not_found and self.feed.resource.group == GROUP:
            words = f"{self.name}.{GROUP} is not installed: apply the CRDs (prewarm crds | kubectl apply -f -)"
        if words != self._complaint:
            self._complaint = words
            _LOG.warning("out of step with the server, trying again", kind=self.name, problem=words)
