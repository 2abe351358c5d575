"""metadata of our kinds: read tolerantly (snapshots may come from files), written for server-side apply."""

from collections.abc import Mapping

from msgspec import Struct

from prewarm.api.fields import mapping, parse_time, text
from prewarm.model.pods import OwnerReference

MAX_ANNOTATION = 64 * 1024
"""Longest annotation of ours that is read, in characters."""


class Metadata(Struct, frozen=True):
    """What is read of an object's metadata; times are Unix seconds."""

    namespace: str
    name: str
    uid: str
    generation: int
    labels: Mapping[str, object]
    annotations: Mapping[str, object]
    created_at: float
    deleted_at: float | None
    owner: OwnerReference | None
    resource_version: str

    def annotation(self, name: str) -> str:
        """An annotation's value; "" if it is absent or too long to be ours."""
        return text(self.annotations.get(name), MAX_ANNOTATION)

    def request(self, name: str) -> str | None:
        """An annotation's value, which may be empty; None if it is absent or no text."""
        value = self.annotations.get(name)
        return value[:MAX_ANNOTATION] if isinstance(value, str) else None


def decode_metadata(raw: Mapping[str, object]) -> Metadata:
    """Metadata of an object; what is missing or malformed is empty."""
    metadata = mapping(raw.get("metadata"))
    generation = metadata.get("generation")
    return Metadata(
        namespace=text(metadata.get("namespace")),
        name=text(metadata.get("name")),
        uid=text(metadata.get("uid")),
        generation=generation if isinstance(generation, int) and not isinstance(generation, bool) else 0,
        labels=mapping(metadata.get("labels")),
        annotations=mapping(metadata.get("annotations")),
        created_at=parse_time(metadata.get("creationTimestamp")) or 0.0,
        deleted_at=parse_time(metadata.get("deletionTimestamp")),
        owner=_owner(metadata.get("ownerReferences")),
        resource_version=text(metadata.get("resourceVersion")),
    )


def _owner(references: object) -> OwnerReference | None:
    """The controlling owner, else the first: planned ImageCaches are owned by a workload that does not control them."""
    if not isinstance(references, list):
        return None
    owners = [mapping(reference) for reference in references]
    chosen = next((owner for owner in owners if owner.get("controller") is True), owners[0] if owners else None)
    if chosen is None:
        return None
    return OwnerReference(
        kind=text(chosen.get("kind")),
        name=text(chosen.get("name")),
        uid=text(chosen.get("uid")),
        api_version=text(chosen.get("apiVersion")),
    )
