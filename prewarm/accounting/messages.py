"""What a kubelet's event says about an image (pkg/kubelet/images/image_manager.go, 1.29 to 1.37)."""

import re
from enum import StrEnum
from functools import lru_cache

import durationpy
from msgspec import Struct

from prewarm.model.workloads import KubeletEvent


class MessageKind(StrEnum):
    """What the kubelet reported."""

    PULLING = "Pulling"
    PULLED = "Pulled"
    PRESENT = "Present"
    FAILED = "Failed"


class ImageMessage(Struct, frozen=True):
    """One message about one image, spelt as in the pod spec."""

    kind: MessageKind
    image: str
    pull_seconds: float = 0.0
    """Of PULLED: the runtime's call alone."""
    total_seconds: float = 0.0
    """Of PULLED: the above and the wait in the kubelet's queue."""
    size_bytes: int = 0
    """Of PULLED: compressed size as the runtime tells it; 0 if it did not."""


_DURATION = r"[0-9][0-9a-zµμ.]*"
_LONGEST_SECONDS = 7 * 86_400.0
_LARGEST_BYTES = 10**15
"""Events may be written by people as well: what is beyond these is not believed."""
_FORMS: tuple[tuple[str, MessageKind, re.Pattern[str]], ...] = (
    ("Pulling", MessageKind.PULLING, re.compile(r'Pulling image "(?P<image>[^"]+)"')),
    (
        "Pulled",
        MessageKind.PULLED,
        re.compile(
            rf'Successfully pulled image "(?P<image>[^"]+)"(?: in (?P<pull>{_DURATION})'
            rf"(?: \((?P<total>{_DURATION}) including waiting\))?)?(?:\. Image size: (?P<size>[0-9]+) bytes)?"
        ),
    ),
    ("Pulled", MessageKind.PRESENT, re.compile(r'Container image "(?P<image>[^"]+)" already present on machine')),
    ("Failed", MessageKind.FAILED, re.compile(r'Failed to pull image "(?P<image>[^"]+)"')),
)
_COMBINED = "(combined from similar events): "


@lru_cache(maxsize=4096)
def _seconds(text: str | None) -> float:
    try:
        seconds: float = durationpy.from_str(text).total_seconds() if text else 0.0
    except (durationpy.DurationError, ValueError, OverflowError):
        return 0.0
    return seconds if seconds <= _LONGEST_SECONDS else 0.0


def _bytes(digits: str | None) -> int:
    size = int(digits) if digits and len(digits) <= len(str(_LARGEST_BYTES)) else 0
    return size if size <= _LARGEST_BYTES else 0


def read_message(event: KubeletEvent) -> ImageMessage | None:
    """Take an event's message apart; None if it says nothing about an image's way to the node.

    The pattern is anchored at the front only: kubelets append to these texts from release to release.
    """
    text = event.message.removeprefix(_COMBINED)
    for reason, kind, pattern in _FORMS:
        if event.reason != reason:
            continue
        match = pattern.match(text)
        if match is None:
            continue
        if kind is not MessageKind.PULLED:
            return ImageMessage(kind, match["image"])
        pull = _seconds(match["pull"])
        total = _seconds(match["total"]) or pull
        return ImageMessage(kind, match["image"], pull, total, _bytes(match["size"]))
    return None
