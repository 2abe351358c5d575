"""The one writer: executes intents, a bounded number at once, and says of each what became of it."""

import asyncio
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from http import HTTPStatus

import msgspec
from msgspec import Struct

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.cluster.client import Client
from prewarm.cluster.decoding.common import WireObject
from prewarm.cluster.errors import ApiError, ClusterError
from prewarm.cluster.recorder import EventRecorder
from prewarm.model.intents import (
    Apply,
    Create,
    Delete,
    Intent,
    Json,
    LabelNode,
    OpenGate,
    RecordEvent,
    RemoveAnnotation,
)

AT_ONCE = 48
"""Writes at once, status aside: a server that is busy with the writes of a thousand kubelets serves ours by their share
of all that wait. With a dozen creates at once it was idle a quarter of the time while 1,000 pods waited for theirs."""
_STATUS_SLOTS = 2
"""Writes of status at once, beside all others: they do not queue behind fifty pods to be created."""
_HEADER = msgspec.json.Decoder(WireObject)


class WriteOutcome(StrEnum):
    """What became of an intent."""

    APPLIED = "Applied"
    CREATED = "Created"
    EXISTED = "Existed"
    """Of Create: an object of that name was there; names say what is inside, so it is the one wanted."""
    DELETED = "Deleted"
    GONE = "Gone"
    """There was nothing (or only a namesake with another uid) to delete, to apply a status to, or to remove."""
    RECORDED = "Recorded"
    NAMESPACE_ENDS = "NamespaceEnds"
    """What was to be created, or told, has no place: its namespace is being terminated, or is gone."""
    REFUSED = "Refused"
    """The server says no (quota, admission, validation, rights): asking again is of no use until something changes."""
    FAILED = "Failed"
    """No answer, or a transient error on every try."""


class WriteResult(Struct, frozen=True):
    """An intent and what became of it; `reason` and `message` are the server's own words."""

    intent: Intent
    outcome: WriteOutcome
    code: int = 0
    reason: str = ""
    message: str = ""
    uid: str = ""
    """Of the object as applied or created."""
    resource_version: str = ""
    body: bytes = b""
    """The object as applied or created: whoever decides next need not wait for the watch to bring it."""

    @property
    def done(self) -> bool:
        """Whether the cluster is as the intent wanted it."""
        return self.outcome not in {WriteOutcome.REFUSED, WriteOutcome.FAILED, WriteOutcome.NAMESPACE_ENDS}


class Writer:
    """Executes intents. Refusals are values, not exceptions: the next round decides anew from what is there."""

    def __init__(
        self,
        client: Client,
        *,
        concurrency: int = AT_ONCE,
        clock: Callable[[], float] = time.time,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`allowed` is asked before every write: what was decided under a lease that has run out is not written."""
        self._client = client
        self._allowed = allowed
        self._slots = asyncio.Semaphore(concurrency)
        self._status_slots = asyncio.Semaphore(_STATUS_SLOTS)
        self._recorder = EventRecorder(client, component=client.field_manager, clock=clock)

    async def execute(self, intents: Iterable[Intent]) -> tuple[WriteResult, ...]:
        """Execute all; results in the order of the intents.

        Intents for one object run one after the other in their order, others at the same time.
        """
        ordered = list(intents)
        by_object: dict[tuple[str, str, str], list[int]] = {}
        for position, intent in enumerate(ordered):
            by_object.setdefault((intent.resource.plural, intent.namespace, intent.name), []).append(position)
        results: dict[int, WriteResult] = {}

        async def one_after_the_other(positions: list[int]) -> None:
            for position in positions:
                intent = ordered[position]
                of_status = isinstance(intent, Apply) and intent.subresource == "status"
                async with self._status_slots if of_status else self._slots:
                    results[position] = await self._execute(intent)

        async with asyncio.TaskGroup() as group:
            for (plural, namespace, name), positions in by_object.items():
                group.create_task(one_after_the_other(positions), name=f"write {plural} {namespace}/{name}")
        return tuple(results[position] for position in range(len(ordered)))

    async def _execute(self, intent: Intent) -> WriteResult:
        if not self._allowed():
            return WriteResult(
                intent, WriteOutcome.FAILED, message="not written: somebody else may hold the lease by now"
            )
        try:
            return await self._write(intent)
        except ApiError as error:
            return WriteResult(intent, _outcome(intent, error), error.code, error.reason, error.message)
        except ClusterError as error:
            return WriteResult(intent, WriteOutcome.FAILED, message=str(error))
        except msgspec.DecodeError as error:
            # A proxy's page in place of the server's answer.
            return WriteResult(intent, WriteOutcome.FAILED, message=f"the answer is no Kubernetes object: {error}")

    async def _write(self, intent: Intent) -> WriteResult:
        client = self._client
        match intent:
            case Apply(resource, namespace, name, manifest, subresource):
                body = await client.apply(resource, namespace, name, manifest, subresource)
                return _written(intent, WriteOutcome.APPLIED, body)
            case Create(resource, namespace, _, manifest):
                # Between two tries a pod may do its work and be deleted: whoever ordered it looks first.
                body = await client.create(resource, namespace, manifest, repeatable=False)
                return _written(intent, WriteOutcome.CREATED, body)
            case Delete(resource, namespace, name, uid, grace):
                await client.delete(resource, namespace, name, uid=uid, grace_seconds=grace)
                return WriteResult(intent, WriteOutcome.DELETED)
            case RemoveAnnotation(resource, namespace, name):
                body = await client.json_patch(resource, namespace, name, _removal(intent))
                return _written(intent, WriteOutcome.APPLIED, body)
            case OpenGate(resource, namespace, name):
                body = await client.json_patch(resource, namespace, name, opening(intent))
                return _written(intent, WriteOutcome.APPLIED, body)
            case LabelNode(name, labels, uid):
                # Setting what is there and removing what is not change nothing; another uid is a conflict.
                metadata: dict[str, Json] = {"labels": dict(labels), **({"uid": uid} if uid else {})}
                body = await client.merge_patch(intent.resource, "", name, {"metadata": metadata})
                return _written(intent, WriteOutcome.APPLIED, body)
            case RecordEvent():
                await self._recorder.record(intent)
                return WriteResult(intent, WriteOutcome.RECORDED)


def opening(intent: OpenGate) -> Json:
    """The JSON patch that opens a gate."""
    marker = _annotation_path(ANNOTATION_GATE_HELD)
    operations: list[Json] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": intent.resource_version},
        {"op": "test", "path": marker, "value": intent.marker},
        {"op": "remove", "path": marker},
    ]
    if intent.held and intent.partition is not None:
        path = "/spec/updateStrategy/rollingUpdate/partition"
        operations.append({"op": "replace", "path": path, "value": intent.partition})
    elif intent.held:
        operations.append({"op": "remove", "path": "/spec/paused"})
    return operations


def _annotation_path(name: str) -> str:
    # RFC 6901: ~ and / within a name.
    return "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1")


def _removal(intent: RemoveAnnotation) -> Json:
    path = _annotation_path(intent.annotation)
    operations: list[Json] = [{"op": "test", "path": path, "value": intent.value}, {"op": "remove", "path": path}]
    return [{"op": "test", "path": "/metadata/uid", "value": intent.uid}, *operations] if intent.uid else operations


def _written(intent: Intent, outcome: WriteOutcome, body: bytes) -> WriteResult:
    meta = _HEADER.decode(body).metadata
    return WriteResult(intent, outcome, uid=meta.uid, resource_version=meta.resource_version, body=body)


def _outcome(intent: Intent, error: ApiError) -> WriteOutcome:
    match intent:
        case Create() if error.reason == "AlreadyExists":
            return WriteOutcome.EXISTED
        case Delete(uid=uid) if error.not_found or (error.reason == "Conflict" and uid):
            return WriteOutcome.GONE
        case Apply(subresource=subresource) if error.not_found and subresource:
            return WriteOutcome.GONE
        case LabelNode(uid=uid) if error.not_found or (error.reason == "Conflict" and uid):
            return WriteOutcome.GONE
        case RemoveAnnotation() | OpenGate() if error.not_found or error.code == HTTPStatus.UNPROCESSABLE_ENTITY:
            # A failed "test" is answered with 422.
            return WriteOutcome.GONE
        case _ if error.namespace_ends:
            return WriteOutcome.NAMESPACE_ENDS
        case _:
            transient = error.transient or error.reason == "Conflict"
            return WriteOutcome.FAILED if transient else WriteOutcome.REFUSED
