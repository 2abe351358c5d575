"""Writes in the background what nobody waits for: status, records, Events, deletions."""

import asyncio
from collections.abc import Iterable

from prewarm.controller.execution import Execution
from prewarm.model.intents import Apply, Create, Delete, Intent, RecordEvent, RemoveAnnotation

_Key = tuple[str, ...]


class Scribe:
    """A queue of intents in front of the writer, so that a slow write never delays the next decision.

    A newer Apply of the same object takes the place of one that still waits: only the last state matters. A deletion or
    an Event that waits already is not queued twice: while the server is away, deciders ask again and again.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._waiting: dict[_Key, Intent] = {}
        self._more = asyncio.Event()

    def put(self, intents: Iterable[Intent]) -> None:
        """Queue intents; those for one object keep their order."""
        for intent in intents:
            key = _key(intent)
            # Dictionaries keep the place of a key that is set again; a replaced Apply belongs at the end.
            self._waiting.pop(key, None)
            self._waiting[key] = intent
        if self._waiting:
            self._more.set()

    async def run(self) -> None:
        """Write until cancelled; what still waits then is left to whoever decides next."""
        while True:
            await self._more.wait()
            self._more.clear()
            batch, self._waiting = tuple(self._waiting.values()), {}
            await self._execution.execute(batch)


def _key(intent: Intent) -> _Key:
    """What the intent is about; a later one with the same key takes its place."""
    about = (type(intent).__name__, intent.resource.plural, intent.namespace, intent.name)
    match intent:
        case Apply():
            return (*about, intent.subresource)
        case Delete():
            return (*about, intent.uid)
        case RecordEvent():
            return (*about, intent.uid, intent.reason, intent.message)
        case RemoveAnnotation():
            return (*about, intent.uid, intent.annotation, intent.value)
        case Create():
            return about
