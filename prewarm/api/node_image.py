"""NodeImage: what prewarm knows to be on one node. Written by the controller alone, read by people on call.

The content is an observation, so it stands in `status`; the kind has no status subresource, so that one request
writes the whole object. The Node owns it: it is collected with the node, and a node that is re-created under the
same name inherits nothing, since node uid and boot id are compared.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from prewarm.api import names
from prewarm.api.fields import REASON_LENGTH, ApiModel, Count, Reason, Time, api_time, one_line, unix
from prewarm.api.metadata import decode_metadata
from prewarm.model.images import MAX_REFERENCE_LENGTH
from prewarm.model.intents import Json, Manifest
from prewarm.model.nodes import MAX_IDENTITY, Evidence, FailedPull, NodeImages, PresentImage
from prewarm.model.removals import RemovalResult

MAX_PRESENT_IMAGES = 256
"""Images of one node that are kept: about 60 KB at usual lengths."""
MAX_FAILED_PULLS = 50
_MAX_MESSAGE = 512
_MAX_CACHE = 2 * 253 + 1
_MAX_DIGEST = 256


class PresentImageFields(ApiModel):
    """One image that is on the node."""

    image: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE_LENGTH)]
    """The image in full: registry, repository, tag or digest."""
    evidence: Literal["OurPull", "NodeStatus", "RunningPod"]
    """How prewarm knows: it pulled the image, the node lists it, or a container runs it."""
    since: Time
    """Since when it is known to be there."""
    digest: Annotated[str, Field(max_length=_MAX_DIGEST)] = ""
    """Digest that the kubelet reported."""
    size_bytes: Count = 0
    """Size that the node reports; 0 if unknown."""
    cache: Annotated[str, Field(max_length=_MAX_CACHE)] = ""
    """Namespace and name of the ImageCache for which prewarm pulled it."""
    pull_seconds: Annotated[float, Field(ge=0)] | None = None
    """How long prewarm's pull took."""
    pull_identity: Annotated[str, Field(max_length=MAX_IDENTITY)] = ""
    """Namespace, service account and names of the pull secrets under which it was pulled; empty for none. Many long
    names are told by their digest."""
    used_at: Time | None = None
    """When a workload's container first used it after prewarm's pull."""
    held_until: Time | None = None
    """Until when a finished pod of ours keeps it from the kubelet's garbage collection; absent if none does."""
    stays: Literal["", "InUse", "Pinned", "OtherNames", "Wanted", "Held", "Failed", "Invalid"] = ""
    """Why it stayed when it was to be removed."""
    stays_in: Annotated[str, Field(max_length=16)] = ""
    """In which round of removals that was, as in the ImageCache's status.removalRound."""


class FailedPullFields(ApiModel):
    """Attempts at one image that all failed so far."""

    image: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE_LENGTH)]
    """The image in full: registry, repository, tag or digest."""
    cache: Annotated[str, Field(max_length=_MAX_CACHE)] = ""
    """Namespace and name of the ImageCache that asked for it."""
    cache_uid: Annotated[str, Field(max_length=253)] = ""
    """uid of that ImageCache."""
    reason: Reason = ""
    """Why, in one word."""
    message: Annotated[str, Field(max_length=_MAX_MESSAGE)] = ""
    """The kubelet's or API server's own words about the last attempt."""
    attempts: Count = 1
    """How often it was tried."""
    at: Time
    """When it failed last."""
    pull_identity: Annotated[str, Field(max_length=MAX_IDENTITY)] = ""
    """Namespace, service account and names of the pull secrets under which it was tried; empty for none."""


class NodeImageStatusFields(ApiModel):
    """What is known to be on the node."""

    node_uid: Annotated[str, Field(max_length=253)] = ""
    """uid of the Node: what is written here is void for another one of the same name."""
    boot_id: Annotated[str, Field(max_length=253)] = ""
    """Boot of the node in which this was known."""
    images: Annotated[
        list[PresentImageFields],
        Field(max_length=MAX_PRESENT_IMAGES, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = Field(default_factory=list)
    """Images that are on the node."""
    failures: Annotated[
        list[FailedPullFields],
        Field(max_length=MAX_FAILED_PULLS, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = Field(default_factory=list)
    """Images that prewarm tried to pull in vain, so that a restarted controller goes on counting attempts."""
    image_count: Count = 0
    """Number of images above, for the columns of kubectl get."""
    failure_count: Count = 0
    """Number of failures above."""


class NodeImageResource(ApiModel):
    """Images that prewarm knows to be on one node. Named like the node."""

    status: NodeImageStatusFields
    """What is known to be on the node. Written by the controller."""


def decode_node_images(raw: Mapping[str, object]) -> NodeImages:
    """A NodeImage object; never raises: an unreadable one knows nothing, and is written anew."""
    metadata = decode_metadata(raw)
    try:
        fields = NodeImageStatusFields.model_validate(raw.get("status"))
    except ValidationError:
        return NodeImages(metadata.name, "", "", resource_version=metadata.resource_version)
    return NodeImages(
        node_name=metadata.name,
        node_uid=fields.node_uid,
        boot_id=fields.boot_id,
        images=tuple(_present(image) for image in fields.images),
        failures=tuple(_failed(failure) for failure in fields.failures),
        resource_version=metadata.resource_version,
    )


def _present(fields: PresentImageFields) -> PresentImage:
    return PresentImage(
        image=fields.image,
        evidence=Evidence(fields.evidence),
        since=fields.since.timestamp(),
        digest=fields.digest,
        size_bytes=fields.size_bytes,
        cache=fields.cache,
        pull_seconds=fields.pull_seconds,
        pull_identity=fields.pull_identity,
        used_at=unix(fields.used_at),
        held_until=unix(fields.held_until),
        stays=RemovalResult(fields.stays) if fields.stays else None,
        stays_in=fields.stays_in,
    )


def _failed(fields: FailedPullFields) -> FailedPull:
    return FailedPull(
        image=fields.image,
        cache=fields.cache,
        cache_uid=fields.cache_uid,
        reason=fields.reason,
        message=fields.message,
        attempts=fields.attempts,
        at=fields.at.timestamp(),
        pull_identity=fields.pull_identity,
    )


def bounded_node_images(images: NodeImages) -> NodeImages:
    """What of a record is written: a record that was read back equals it (resource version aside).

    Beyond MAX_PRESENT_IMAGES, our own pulls stay before others, and younger evidence before older: what is dropped is
    at worst pulled again, and then found present. Times are kept to the microsecond.
    """
    kept = images.images
    if len(kept) > MAX_PRESENT_IMAGES:
        ranked = sorted(kept, key=lambda image: (image.evidence is not Evidence.OUR_PULL, -image.since, image.image))
        chosen = {id(image) for image in ranked[:MAX_PRESENT_IMAGES]}
        kept = tuple(image for image in kept if id(image) in chosen)
    failures = sorted(images.failures, key=lambda failure: -failure.at)[:MAX_FAILED_PULLS]
    return NodeImages(
        images.node_name,
        images.node_uid,
        images.boot_id,
        tuple(_bounded(image) for image in kept),
        tuple(_bounded_failure(failure) for failure in images.failures if failure in failures),
    )


def _bounded_failure(failure: FailedPull) -> FailedPull:
    return FailedPull(
        image=failure.image[:MAX_REFERENCE_LENGTH],
        cache=failure.cache[:_MAX_CACHE],
        cache_uid=failure.cache_uid[:253],
        reason=one_line(failure.reason, REASON_LENGTH),
        message=one_line(failure.message, _MAX_MESSAGE),
        attempts=failure.attempts,
        at=round(failure.at, 6),
        pull_identity=failure.pull_identity[:MAX_IDENTITY],
    )


def _bounded(image: PresentImage) -> PresentImage:
    return PresentImage(
        image=image.image[:MAX_REFERENCE_LENGTH],
        evidence=image.evidence,
        since=round(image.since, 6),
        digest=one_line(image.digest, _MAX_DIGEST),
        size_bytes=max(0, image.size_bytes),
        cache=image.cache[:_MAX_CACHE],
        pull_seconds=None if image.pull_seconds is None else max(0.0, round(image.pull_seconds, 6)),
        pull_identity=image.pull_identity[:MAX_IDENTITY],
        used_at=None if image.used_at is None else round(image.used_at, 6),
        held_until=None if image.held_until is None else round(image.held_until, 6),
        stays=image.stays,
        stays_in=image.stays_in[:16],
    )


def node_images_manifest(images: NodeImages) -> Manifest:
    """The object to apply, bounded, owned by its Node."""
    bounded = bounded_node_images(images)
    metadata: dict[str, Json] = {
        "name": bounded.node_name,
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
    }
    if bounded.node_uid:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Node", "name": bounded.node_name, "uid": bounded.node_uid}
        ]
    status: dict[str, Json] = {
        "nodeUid": bounded.node_uid,
        "bootId": bounded.boot_id,
        "images": [_fields(image) for image in bounded.images],
        "imageCount": len(bounded.images),
        "failureCount": len(bounded.failures),
    }
    if bounded.failures:
        status["failures"] = [_failure_fields(failure) for failure in bounded.failures]
    return {"apiVersion": names.API_VERSION, "kind": "NodeImage", "metadata": metadata, "status": status}


def _failure_fields(failure: FailedPull) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "image": failure.image,
        "cache": failure.cache,
        "cacheUid": failure.cache_uid,
        "reason": failure.reason,
        "message": failure.message,
        "attempts": failure.attempts,
        "at": api_time(failure.at),
        "pullIdentity": failure.pull_identity,
    }
    return {name: value for name, value in fields.items() if value}


def _fields(image: PresentImage) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "image": image.image,
        "evidence": image.evidence.value,
        "since": api_time(image.since),
    }
    optional: dict[str, Json] = {
        "digest": image.digest,
        "sizeBytes": image.size_bytes,
        "cache": image.cache,
        "pullIdentity": image.pull_identity,
        "stays": image.stays.value if image.stays is not None else None,
        "staysIn": image.stays_in,
    }
    fields.update({name: value for name, value in optional.items() if value})
    if image.pull_seconds is not None:
        fields["pullSeconds"] = image.pull_seconds
    if image.used_at is not None:
        fields["usedAt"] = api_time(image.used_at)
    if image.held_until is not None:
        fields["heldUntil"] = api_time(image.held_until)
    return fields
