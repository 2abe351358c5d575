"""Executes intents, and lets the next decision see what was written without waiting for the watch."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping

import structlog

from prewarm.cluster.feeds import Feed
from prewarm.cluster.store import Store
from prewarm.cluster.writer import WriteOutcome, Writer, WriteResult
from prewarm.controller.metrics import Metrics
from prewarm.model.intents import IMAGE_CACHES, PODS, Apply, Create, Intent, OpenGate

TURNS_TO_WIRE = 4
"""Turns of the event loop from a queue to the socket: who reads the queue, a task for the intent, writer and client."""
_REMEMBERED = 1000
"""Objects whose trouble was told lately."""

log = structlog.stdlib.get_logger(__name__)
_decisions = structlog.stdlib.get_logger("prewarm.decisions")


async def sent() -> None:
    """Return once what was just queued is on the wire, if the writer has a slot for it.

    Whoever goes on computing at once keeps it back for as long as that takes.
    """
    for _ in range(TURNS_TO_WIRE):
        await asyncio.sleep(0)


class Execution:
    """Hands intents to the writer, counts and logs what became of them, and feeds created objects into the store."""

    def __init__(self, writer: Writer, store: Store, feeds: Collection[Feed], metrics: Metrics) -> None:
        self._writer = writer
        self._store = store
        self._feeds: Mapping[str, Feed] = {feed.resource.plural: feed for feed in feeds}
        self._metrics = metrics
        self._told: dict[tuple[str, str, str, str], str] = {}

    async def execute(self, intents: Collection[Intent]) -> tuple[WriteResult, ...]:
        """Execute all; results in the order of the intents. What was to be told of some is written after them."""
        results = await self._writer.execute(intents)
        self._note(results)
        opened = [result.intent for result in results if result.outcome is WriteOutcome.APPLIED]
        told = [found for intent in opened if isinstance(intent, OpenGate) for found in self._opened(intent)]
        if told:
            self._note(await self._writer.execute(told))
        return results

    def _opened(self, intent: OpenGate) -> Iterator[Intent]:
        """Count and log a gate that is open now; an Event for the workload's owner, if there is one."""
        self._metrics.gates_opened.labels(intent.reason).inc()
        workload = f"{intent.resource.kind.lower()}/{intent.namespace}/{intent.name}"
        why = intent.told.message if intent.told is not None else ""
        _decisions.info("gate opened", workload=workload, reason=intent.reason, why=why)
        if intent.told is not None:
            yield intent.told

    def _note(self, results: Iterable[WriteResult]) -> None:
        for result in results:
            kind = type(result.intent).__name__
            self._metrics.writes.labels(kind).inc()
            if not result.done and result.outcome is not WriteOutcome.NAMESPACE_ENDS:
                self._metrics.write_errors.labels(kind).inc()
            self._take(result)
            self._tell(kind, result)

    def _tell(self, kind: str, result: WriteResult) -> None:
        """Log trouble with an object when it begins or changes, not at each try.

        That a namespace ends is no trouble: what was to be written goes with it.
        """
        intent = result.intent
        about = (kind, intent.resource.kind, intent.namespace, intent.name)
        before = self._told.pop(about, None)
        words = {"intent": kind, "kind": intent.resource.kind, "namespace": intent.namespace, "name": intent.name}
        if result.done:
            if isinstance(intent, Create | Apply) and not (isinstance(intent, Apply) and intent.subresource):
                log.debug("written", outcome=result.outcome.value, **words)
            return
        trouble = f"{result.code} {result.message}"
        told = before == trouble or result.outcome is WriteOutcome.NAMESPACE_ENDS
        tell = log.debug if told else log.warning
        tell(
            "write failed",
            outcome=result.outcome.value,
            code=result.code,
            reason=result.reason,
            problem=result.message,
            **words,
        )
        self._told[about] = trouble
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]

    def _take(self, result: WriteResult) -> None:
        intent = result.intent
        status_only = isinstance(intent, Apply) and bool(intent.subresource)
        if status_only and result.outcome is WriteOutcome.GONE and intent.resource == IMAGE_CACHES:
            # A deletion may overtake the answer to our own write: what is not there must not stay in the store.
            self._store.image_caches.remove((intent.namespace, intent.name))
        feed = self._feeds.get(intent.resource.plural)
        if feed is not None and result.body and not status_only and intent.resource in {IMAGE_CACHES, PODS}:
            feed.put_raw(result.body)
