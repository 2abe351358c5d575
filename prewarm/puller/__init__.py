"""How do images get to nodes? Puller pods within budgets, read back, recorded, reported, removed."""

from prewarm.puller.memory import PullerMemory
from prewarm.puller.outcome import ImageResult, PullState, Reading, classify, read
from prewarm.puller.pairs import Pair, PairState
from prewarm.puller.reasons import FailureReason, WithheldReason
from prewarm.puller.reconcile import PullerDecision, reconcile
from prewarm.puller.refusals import Refusal
from prewarm.puller.settings import PullerSettings

__all__ = [
    "FailureReason",
    "ImageResult",
    "Pair",
    "PairState",
    "PullState",
    "PullerDecision",
    "PullerMemory",
    "PullerSettings",
    "Reading",
    "Refusal",
    "WithheldReason",
    "classify",
    "read",
    "reconcile",
]
