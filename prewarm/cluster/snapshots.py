"""Snapshots from a file that kubectl printed. Imports no HTTP client: the command line should start quickly."""

import re

import msgspec
from msgspec import Struct

from prewarm.cluster.decoding.depth import shallow
from prewarm.cluster.errors import ClusterError
from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.model.snapshot import ClusterSnapshot

_TYPE = re.compile(rb'\s*\{\s*"apiVersion"\s*:\s*"([^"\\]*)"\s*,\s*"kind"\s*:\s*"([^"\\]*)"')
"""How kubectl begins every object; anything else is looked into properly."""


class SnapshotError(ClusterError):
    """The given data is no snapshot; the message is one clear line."""


class _TypeMeta(Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""


class _AnyList(Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    items: list[msgspec.Raw] | None = None


def read_snapshot(data: bytes, now: float) -> ClusterSnapshot:
    """A snapshot from a v1 List of mixed kinds, as `kubectl get nodes,pods,deployments,... -A -o json` prints it.

    Kinds that planning does not read are passed over; so are objects that cannot be understood, with a warning each.

    Raises:
        SnapshotError: if the data is not a list of Kubernetes objects.
    """
    listing = _parse(data)
    store = Store()
    by_type = {(served.api_version, served.kind): feed for feed in feeds(store) for served in feed.resources}
    default = (listing.api_version, listing.kind.removesuffix("List"))
    understood = 0
    for item in listing.items or ():
        feed = by_type.get(_type_of(item) or default)
        if feed is not None:
            feed.put_raw(item)
            understood += 1
    if listing.items and not understood:
        raise SnapshotError(
            f"snapshot: none of its {len(listing.items)} objects is of a kind that planning reads; "
            "write it with: kubectl get nodes,pods,deployments,replicasets -A -o json"
        )
    return store.snapshot(now)


def _parse(data: bytes) -> _AnyList:
    if not data.strip():
        raise SnapshotError("snapshot is empty: give the output of kubectl get ... -o json")
    try:
        listing = _listing(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(f"snapshot is no JSON list as kubectl get -o json prints it: {error}") from None
    if listing.items is None or not listing.kind.endswith("List"):
        found = listing.kind or "something without a kind"
        raise SnapshotError(f"snapshot holds {found}, not a List: give the output of kubectl get ... -o json")
    return listing


def _listing(data: bytes) -> _AnyList:
    try:
        return msgspec.json.decode(data, type=_AnyList)
    except RecursionError:
        return msgspec.json.decode(shallow(data), type=_AnyList)


def _type_of(raw: msgspec.Raw) -> tuple[str, str] | None:
    """ApiVersion and kind; None if absent, as in the items of a typed list."""
    match = _TYPE.match(raw)
    if match is not None:
        return match[1].decode("utf-8", "replace"), match[2].decode("utf-8", "replace")
    try:
        meta = msgspec.json.decode(raw, type=_TypeMeta)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return (meta.api_version, meta.kind) if meta.kind else None
