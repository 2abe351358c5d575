"""What have we learnt? Image sizes, pull rates, times to ready and to stop, plans: bounded, kept over restarts."""

from prewarm.history.codec import decode, encode
from prewarm.history.learning import learn, time_to_ready, time_to_stop
from prewarm.history.state import DEFAULT_PULL_SECONDS, DEFAULT_TIME_TO_READY, History

__all__ = [
    "DEFAULT_PULL_SECONDS",
    "DEFAULT_TIME_TO_READY",
    "History",
    "decode",
    "encode",
    "learn",
    "time_to_ready",
    "time_to_stop",
]
