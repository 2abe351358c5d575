"""status of an ImageCache: at most 16 KiB, whatever the size of the cluster."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from pydantic import Field, ValidationError

from prewarm.api import names
from prewarm.api.fields import REASON_LENGTH, ApiModel, Count, Reason, Time, api_time, one_line, unix
from prewarm.model.image_caches import Condition, ImageCache, ImageCacheStatus, PullFailure
from prewarm.model.images import MAX_REFERENCE_LENGTH
from prewarm.model.intents import Json, Manifest

MAX_STATUS_BYTES = 16 * 1024
"""Size of an encoded status: etcd keeps every version until compaction, so 150 patches of 243 KB cost it 76 MB."""
MAX_CONDITIONS = 8
MAX_REASONS = 32
MAX_FAILURES = 20
MAX_MESSAGE = 256
"""Characters of a condition's or failure's message."""
MAX_REQUEST = 253
"""Characters of an annotation's value that are compared: people write a time or a number there."""


class ConditionFields(ApiModel):
    """One aspect of the state, as in metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=REASON_LENGTH)]
    """Ready, Progressing, Degraded, Finished or Purged."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=REASON_LENGTH)] = ""
    """Why, in one word."""
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    """Why, for people."""
    last_transition_time: Time | None = None
    """Since when."""
    observed_generation: Count = 0
    """The generation of the spec that it speaks of."""


class ReasonCount(ApiModel):
    """How many pairs of image and node share a reason."""

    reason: Annotated[str, Field(min_length=1, max_length=REASON_LENGTH)]
    """Why they are not there, in one word."""
    count: Count
    """Pairs of image and node."""


class FailureFields(ApiModel):
    """A pair of image and node that failed."""

    image: Annotated[str, Field(max_length=MAX_REFERENCE_LENGTH)]
    """The image as the spec writes it."""
    node: Annotated[str, Field(max_length=253)]
    """Name of the node."""
    reason: Reason = ""
    """Why, in one word."""
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    """The kubelet's or API server's own words."""
    attempts: Count = 0
    """How often it was tried."""
    at: Time | None = None
    """When it failed last."""


class StatusFields(ApiModel):
    """What was done. Counts are pairs of image and node."""

    observed_generation: Count = 0
    """The generation of the spec that this status speaks of."""
    conditions: Annotated[
        list[ConditionFields],
        Field(
            max_length=MAX_CONDITIONS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = Field(default_factory=list)
    """Ready: all that can be there is there. Progressing: pulls are under way or waiting. Degraded: some failed.
    Finished: with completion Once, the work has ended, well or not; the reason says which. Purged: what was to be
    removed from nodes is gone; the reason says why not."""
    desired: Count = 0
    """Pairs that should be there."""
    active: Count = 0
    """Pairs that are being pulled."""
    succeeded: Count = 0
    """Pairs that are there."""
    failed: Count = 0
    """Pairs whose last attempt failed."""
    skipped: Count = 0
    """Pairs that are held back by the state of the node or by the spec."""
    reasons: Annotated[
        list[ReasonCount],
        Field(
            max_length=MAX_REASONS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["reason"]},
        ),
    ] = Field(default_factory=list)
    """Pairs that are not there, by reason."""
    failures: Annotated[
        list[FailureFields], Field(max_length=MAX_FAILURES, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """At most 20 failures."""
    started_at: Time | None = None
    """When the first pull was ordered; with completion Once, when the work began."""
    completed_at: Time | None = None
    """When the last pair was settled; absent while pulls are under way or waiting."""
    refreshed_at: Time | None = None
    """When the last refresh began that had anything to do, by interval, schedule or request."""
    requested_at: Time | None = None
    """When the last refresh by the annotation prewarm.dev/refresh began."""
    refresh_handled: Annotated[str, Field(max_length=MAX_REQUEST)] = ""
    """The last value of the annotation prewarm.dev/refresh that was acted on; <empty> until an empty one is removed."""
    purge_handled: Annotated[str, Field(max_length=MAX_REQUEST)] = ""
    """The last value of the annotation prewarm.dev/purge that was acted on; <empty> until an empty one is removed."""
    purged_at: Time | None = None
    """When the last purge by the annotation prewarm.dev/purge began. Nothing is pulled again until a refresh by
    annotation or another spec; then the field goes."""
    purged_generation: Count = 0
    """The generation of the spec that was purged."""
    removal_round: Annotated[str, Field(max_length=16)] = ""
    """Which round of removals removalTotal speaks of: a purge, or what one edit no longer asks for."""
    removal_total: Count = 0
    """Pairs of image and node that were to be removed in that round."""


def decode_status(raw: object) -> ImageCacheStatus:
    """A status as we wrote it; an unreadable one is empty, since it is computed anew anyway."""
    try:
        fields = StatusFields.model_validate(raw)
    except ValidationError:
        return ImageCacheStatus()
    return ImageCacheStatus(
        observed_generation=fields.observed_generation,
        conditions=tuple(
            Condition(c.type, c.status == "True", c.reason, c.message, unix(c.last_transition_time) or 0.0)
            for c in fields.conditions
        ),
        desired=fields.desired,
        active=fields.active,
        succeeded=fields.succeeded,
        failed=fields.failed,
        skipped=fields.skipped,
        reasons=tuple((entry.reason, entry.count) for entry in fields.reasons),
        failures=tuple(
            PullFailure(f.image, f.node, f.reason, f.message, f.attempts, unix(f.at) or 0.0) for f in fields.failures
        ),
        started_at=unix(fields.started_at),
        completed_at=unix(fields.completed_at),
        refreshed_at=unix(fields.refreshed_at),
        requested_at=unix(fields.requested_at),
        refresh_handled=fields.refresh_handled,
        purge_handled=fields.purge_handled,
        purged_at=unix(fields.purged_at),
        purged_generation=fields.purged_generation,
        removal_round=fields.removal_round,
        removal_total=fields.removal_total,
    )


def bounded_status(status: ImageCacheStatus) -> ImageCacheStatus:
    """What of a status is written: a status that was read back equals it, so compare with this one to find changes.

    Times are kept to the microsecond, texts are cut to one line, and failures, then reasons, are dropped from the end
    until the whole takes at most MAX_STATUS_BYTES.
    """
    bounded = ImageCacheStatus(
        observed_generation=status.observed_generation,
        conditions=tuple(_bounded_condition(c) for c in status.conditions[:MAX_CONDITIONS]),
        desired=status.desired,
        active=status.active,
        succeeded=status.succeeded,
        failed=status.failed,
        skipped=status.skipped,
        reasons=tuple((one_line(r, REASON_LENGTH), n) for r, n in status.reasons[:MAX_REASONS]),
        failures=tuple(_bounded_failure(f) for f in status.failures[:MAX_FAILURES]),
        started_at=_microseconds(status.started_at),
        completed_at=_microseconds(status.completed_at),
        refreshed_at=_microseconds(status.refreshed_at),
        requested_at=_microseconds(status.requested_at),
        refresh_handled=status.refresh_handled[:MAX_REQUEST],
        purge_handled=status.purge_handled[:MAX_REQUEST],
        purged_at=_microseconds(status.purged_at),
        purged_generation=status.purged_generation,
        removal_round=status.removal_round[:16],
        removal_total=status.removal_total,
    )
    while (bounded.failures or bounded.reasons) and _size(bounded) > MAX_STATUS_BYTES:
        if bounded.failures:
            bounded = msgspec.structs.replace(bounded, failures=bounded.failures[:-1])
        else:
            bounded = msgspec.structs.replace(bounded, reasons=bounded.reasons[:-1])
    return bounded


def encode_status(status: ImageCacheStatus) -> Manifest:
    """The value of the field `status`, bounded."""
    return _fields(bounded_status(status))


def status_manifest(cache: ImageCache, status: ImageCacheStatus) -> Manifest:
    """The object to apply to the status subresource."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ImageCache",
        "metadata": {"name": cache.name, "namespace": cache.namespace},
        "status": encode_status(status),
    }


def _fields(status: ImageCacheStatus) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "observedGeneration": status.observed_generation,
        "desired": status.desired,
        "active": status.active,
        "succeeded": status.succeeded,
        "failed": status.failed,
        "skipped": status.skipped,
    }
    lists: dict[str, Sequence[Json]] = {
        "conditions": [_condition(c, status.observed_generation) for c in status.conditions],
        "reasons": [{"reason": reason, "count": count} for reason, count in status.reasons],
        "failures": [_failure(f) for f in status.failures],
    }
    fields.update({name: entries for name, entries in lists.items() if entries})
    times = {
        "startedAt": status.started_at,
        "completedAt": status.completed_at,
        "refreshedAt": status.refreshed_at,
        "requestedAt": status.requested_at,
        "purgedAt": status.purged_at,
    }
    fields.update({name: api_time(time) for name, time in times.items() if time is not None})
    others: dict[str, Json] = {
        "refreshHandled": status.refresh_handled,
        "purgeHandled": status.purge_handled,
        "purgedGeneration": status.purged_generation,
        "removalRound": status.removal_round,
        "removalTotal": status.removal_total,
    }
    fields.update({name: value for name, value in others.items() if value})
    return fields


def _condition(condition: Condition, generation: int) -> dict[str, Json]:
    return {
        "type": condition.type,
        "status": "True" if condition.status else "False",
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": api_time(condition.since),
        "observedGeneration": generation,
    }


def _failure(failure: PullFailure) -> dict[str, Json]:
    return {
        "image": failure.image,
        "node": failure.node,
        "reason": failure.reason,
        "message": failure.message,
        "attempts": failure.attempts,
        "at": api_time(failure.at),
    }


def _bounded_condition(condition: Condition) -> Condition:
    return Condition(
        one_line(condition.type, REASON_LENGTH),
        condition.status,
        one_line(condition.reason, REASON_LENGTH),
        one_line(condition.message, MAX_MESSAGE),
        round(condition.since, 6),
    )


def _bounded_failure(failure: PullFailure) -> PullFailure:
    return PullFailure(
        failure.image[:MAX_REFERENCE_LENGTH],
        failure.node[:253],
        one_line(failure.reason, REASON_LENGTH),
        one_line(failure.message, MAX_MESSAGE),
        failure.attempts,
        round(failure.at, 6),
    )


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _size(status: ImageCacheStatus) -> int:
    return len(msgspec.json.encode(_fields(status)))
