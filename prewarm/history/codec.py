"""The history as bytes for one ConfigMap: versioned JSON, compressed, always within the limit."""

import zlib
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from prewarm.history.state import History, Measured

VERSION = 1
MAX_BYTES = 900_000
"""Largest encoding; a ConfigMap holds 1 MiB (kube-apiserver validation) and base64 is done by the caller's choice."""
_MAX_DECODED = 64_000_000
"""Bytes that a stored history may unpack to; more is no history of ours."""


class _Envelope(Struct, frozen=True):
    version: int
    history: History


class _Version(Struct, frozen=True):
    version: int = 0


def encode(history: History, limit: int = MAX_BYTES) -> bytes:
    """The history as at most `limit` bytes; what helps least is halved until it fits."""
    while len(data := _pack(history)) > limit:
        smaller = _halved(history)
        if smaller == history:
            return _pack(History(reason="the history did not fit"))
        history = smaller
    return data


def decode(data: bytes) -> History:
    """A stored history; what cannot be read gives an empty one whose `reason` says why."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, _MAX_DECODED)
    except zlib.error as error:
        return History(reason=f"stored history is not zlib data ({error}): starting anew")
    if not unpacker.eof:
        return History(reason="stored history is cut off or too large: starting anew")
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            return History(reason=f"stored history has version {version}, this release reads {VERSION}: starting anew")
        return msgspec.json.decode(text, type=_Envelope).history
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return History(reason=f"stored history cannot be read ({error}): starting anew")


def _pack(history: History) -> bytes:
    return zlib.compress(msgspec.json.encode(_Envelope(VERSION, replace(history, reason=""))), level=6)


def _halved(history: History) -> History:
    """Drop half of the first part that is left, in order of least use: sizes, starts, pulls, rates, times, plans."""
    if len(history.image_sizes) > len(history.pulls):
        return replace(history, image_sizes=_newest_half(history.image_sizes))
    if history.starts:
        return replace(history, starts=history.starts[(len(history.starts) + 1) // 2 :])
    for name in ("pulls", "image_sizes", "repository_sizes", "node_rates", "stopping", "ready"):
        values = getattr(history, name)
        if values:
            return replace(history, **{name: _newest_half(values)})
    kept = history.plans_in_force[(len(history.plans_in_force) + 1) // 2 :]
    return replace(history, plans_in_force=kept)


def _newest_half(values: Mapping[str, Measured]) -> dict[str, Measured]:
    ordered = sorted(values.items(), key=lambda item: (-item[1].at, item[0]))
    return dict(ordered[: len(ordered) // 2])
