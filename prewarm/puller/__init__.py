"""How do images get to nodes? Puller pods within budgets, read back, recorded, reported, removed."""

from prewarm.puller.memory import PullerMemory
from prewarm.puller.outcome import ImageResult, PullState, Reading, classify, read
from prewarm.puller.pairs import Pair, PairState
from prewarm.puller.purge_memory import (
    MAX_REMEMBERED,
    PurgeMemory,
    RememberedCache,
    decode_remembered,
    encode_remembered,
)
from prewarm.puller.purge_status import PurgeReason
from prewarm.puller.reasons import FailureReason, WithheldReason
from prewarm.puller.reconcile import PullerDecision, reconcile
from prewarm.puller.refusals import Refusal
from prewarm.puller.settings import PullerSettings, PurgeSettings

__all__ = [
    "MAX_REMEMBERED",
    "FailureReason",
    "ImageResult",
    "Pair",
    "PairState",
    "PullState",
    "PullerDecision",
    "PullerMemory",
    "PullerSettings",
    "PurgeMemory",
    "PurgeReason",
    "PurgeSettings",
    "Reading",
    "Refusal",
    "RememberedCache",
    "WithheldReason",
    "classify",
    "decode_remembered",
    "encode_remembered",
    "read",
    "reconcile",
]
