"""Writes in the background what nobody waits for: status, records, Events, deletions."""

import asyncio
from collections.abc import Iterable

from prewarm.controller.execution import Execution
from prewarm.model.intents import (
    NODE_IMAGES,
    Apply,
    Create,
    Delete,
    Intent,
    LabelNode,
    OpenGate,
    RecordEvent,
    RemoveAnnotation,
)

_Key = tuple[str, ...]
AT_ONCE = 4
"""Written at the same time: few of what the writer can, so that pulls are ordered before they are written up."""
MOST_AT_ONCE = 24
"""But where much waits, more: a slow server serves both by their share. Pods whose failure is not on record yet stand,
and their kubelets go on trying."""
WAITING_FOR_EACH = 8
"""So many that wait have one more written at the same time."""

_RANKS = 3


class Scribe:
    """A queue of intents in front of the writer, so that a slow write never delays the next decision.

    A newer Apply of the same object takes the place of one that still waits: only the last state matters. A deletion or
    an Event that waits already is not queued twice: while the server is away, deciders ask again and again. Of an Apply
    and a Delete that name no uid, only the newer is written: the older would undo it.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._waiting: tuple[dict[_Key, Intent], ...] = tuple({} for _ in range(_RANKS))
        """By rank."""
        self._written_to: set[_Key] = set()
        """Objects that are being written to; one at a time for each, so that their intents keep their order."""
        self._more = asyncio.Event()
        self._resting = False

    def rest(self, resting: bool) -> None:
        """Let what only tells wait, or no longer: where rollouts wait for their first pulls, time goes to those."""
        if self._resting and not resting:
            self._more.set()
        self._resting = resting

    def put(self, intents: Iterable[Intent]) -> None:
        """Queue intents; those for one object keep their order."""
        for intent in intents:
            key = _key(intent)
            queue = self._waiting[_rank(intent)]
            # A replaced one keeps its place: of an object that changes all the time nothing would ever be written.
            queue[key] = intent
            opposite = _opposite(intent)
            if opposite is not None:
                for other in self._waiting:
                    other.pop(opposite, None)
        if any(self._waiting):
            self._more.set()

    async def run(self) -> None:
        """Write until cancelled; what still waits then is left to whoever decides next."""
        async with asyncio.TaskGroup() as group:
            while True:
                while len(self._written_to) < self._places and (intent := self._next()) is not None:
                    about = _object(intent)
                    self._written_to.add(about)
                    group.create_task(self._write(intent, about), name=f"write {' '.join(about)}")
                await self._more.wait()
                self._more.clear()

    @property
    def _places(self) -> int:
        """How many are written at the same time."""
        waiting = sum(map(len, self._waiting))
        return min(MOST_AT_ONCE, AT_ONCE + waiting // WAITING_FOR_EACH)

    async def _write(self, intent: Intent, about: _Key) -> None:
        try:
            await self._execution.execute((intent,))
        finally:
            self._written_to.discard(about)
            self._more.set()

    def _next(self) -> Intent | None:
        """The next to write, what people wait for first: a thousand records must not keep a status back."""
        for queue in self._waiting:
            for key, intent in queue.items():
                if _object(intent) not in self._written_to and not (self._resting and _only_tells(intent)):
                    del queue[key]
                    return intent
        return None


def _object(intent: Intent) -> _Key:
    return (intent.resource.plural, intent.namespace, intent.name)


def _only_tells(intent: Intent) -> bool:
    """Whether nothing else follows from it: no gate opens by it, no pod is steered, no room is made."""
    match intent:
        case Apply(resource, subresource=subresource):
            return subresource == "status" or resource == NODE_IMAGES
        case RecordEvent():
            return True
        case _:
            return False


def _rank(intent: Intent) -> int:
    """What goes first; those of one rank keep their order."""
    match intent:
        case Apply(subresource="status") | LabelNode():
            # The next pods go where labels are.
            return 0
        case Delete():
            return 2
        case _:
            return 1


def _opposite(intent: Intent) -> _Key | None:
    """Key of the waiting intent that this one makes void: a record written anew, or deleted, whatever its uid."""
    about = (intent.resource.plural, intent.namespace, intent.name)
    match intent:
        case Apply(subresource=""):
            return (Delete.__name__, *about, "")
        case Delete(uid=""):
            return (Apply.__name__, *about, "")
        case _:
            return None


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
        case Create() | OpenGate() | LabelNode():
            return about
