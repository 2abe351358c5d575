"""What is on each node? Evidence of images per node, exact in identity and honest about credentials."""

from prewarm.presence.evidence import (
    LISTED_IMAGES,
    PULL_CONTAINER_PREFIX,
    Sighting,
    our_pulls,
    pulled_images,
    pulls_for,
    record_holds,
)
from prewarm.presence.records import MAX_RECORDED_IMAGES, forgotten, observe
from prewarm.presence.wanted import Wanted
from prewarm.presence.warmth import Warmth, WarmthMemory, warmth

__all__ = [
    "LISTED_IMAGES",
    "MAX_RECORDED_IMAGES",
    "PULL_CONTAINER_PREFIX",
    "Sighting",
    "Wanted",
    "Warmth",
    "WarmthMemory",
    "forgotten",
    "observe",
    "our_pulls",
    "pulled_images",
    "pulls_for",
    "record_holds",
    "warmth",
]
