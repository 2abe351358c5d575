"""How removals are told to the pod on the node, and what it reports on its termination log."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from prewarm.api.fields import one_line
from prewarm.model.images import MAX_REFERENCE_LENGTH
from prewarm.model.removals import Removal, RemovalReport, RemovalResult, Removed

REMOVALS_VARIABLE = "PREWARM_REMOVE"
"""Environment variable with the removals, as JSON: data that no shell sees."""
MAX_REMOVALS = 50
"""Images that one pod removes."""
MAX_NAMES = 20
"""Further names of one image."""
MAX_REPORT_BYTES = 4096
"""What the kubelet keeps of a container's termination message."""
_MAX_ERROR = 512


class _Removal(Struct, forbid_unknown_fields=True):
    image: str
    names: list[str] = []


class _Result(Struct, omit_defaults=True):
    result: RemovalResult
    message: str = ""


class _Report(Struct, omit_defaults=True):
    results: list[_Result] = []
    error: str = ""


def encode_removals(removals: Sequence[Removal]) -> str:
    """The value of REMOVALS_VARIABLE."""
    return msgspec.json.encode([_Removal(r.image, list(r.names[:MAX_NAMES])) for r in removals]).decode()


def decode_removals(text: str) -> tuple[Removal, ...]:
    """The removals that a pod was given.

    Raises:
        ValueError: if the text is no such list, or beyond its bounds; the message is one clear line.
    """
    try:
        removals = msgspec.json.decode(text, type=list[_Removal])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f'{REMOVALS_VARIABLE} is no JSON list such as [{{"image": "app:v1"}}]: {error}') from None
    if len(removals) > MAX_REMOVALS:
        raise ValueError(
            f"{REMOVALS_VARIABLE} names {len(removals)} images: at most {MAX_REMOVALS} are removed at once"
        )
    for removal in removals:
        if len(removal.names) > MAX_NAMES:
            raise ValueError(f"{REMOVALS_VARIABLE} gives an image {len(removal.names)} names: at most {MAX_NAMES}")
        if any(len(name) > MAX_REFERENCE_LENGTH for name in (removal.image, *removal.names)):
            raise ValueError(f"{REMOVALS_VARIABLE} has a reference of more than {MAX_REFERENCE_LENGTH} characters")
    return tuple(Removal(removal.image, tuple(removal.names)) for removal in removals)


def encode_report(report: RemovalReport) -> bytes:
    """The report in at most MAX_REPORT_BYTES: results first, messages are shortened until all fit."""
    results = report.results[:MAX_REMOVALS]
    for length in (256, 64, 16, 0):
        wire = _Report(
            [_Result(result.result, _plain(result.message, length)) for result in results],
            _plain(report.error, _MAX_ERROR),
        )
        encoded = msgspec.json.encode(wire)
        if len(encoded) <= MAX_REPORT_BYTES:
            return encoded
    raise AssertionError("fifty results without messages take less than 4 KiB")


def decode_report(text: str) -> RemovalReport | None:
    """What a pod reported; None if it ended without a word that can be read."""
    try:
        wire = msgspec.json.decode(text, type=_Report)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    results = tuple(Removed(entry.result, one_line(entry.message, 256)) for entry in wire.results[:MAX_REMOVALS])
    return RemovalReport(results, one_line(wire.error, _MAX_ERROR))


def _plain(text: str, length: int) -> str:
    """One line of ASCII: a character takes one byte then, or two."""
    return one_line(text.encode("ascii", "replace").decode(), length) if length else ""
