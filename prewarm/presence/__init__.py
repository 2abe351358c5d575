"""What is on each node? Evidence of images per node, exact in identity and honest about credentials."""

from prewarm.presence.evidence import PULL_CONTAINER_PREFIX, Sighting
from prewarm.presence.records import MAX_RECORDED_IMAGES, forgotten, observe
from prewarm.presence.warmth import Warmth, WarmthMemory, warmth

__all__ = [
    "MAX_RECORDED_IMAGES",
    "PULL_CONTAINER_PREFIX",
    "Sighting",
    "Warmth",
    "WarmthMemory",
    "forgotten",
    "observe",
    "warmth",
]
