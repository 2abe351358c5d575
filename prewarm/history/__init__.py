"""What have we learnt? Image sizes, pull rates, time to ready, plans in force: bounded, and kept over restarts."""

from prewarm.history.codec import decode, encode
from prewarm.history.learning import learn, time_to_ready
from prewarm.history.state import DEFAULT_PULL_SECONDS, DEFAULT_TIME_TO_READY, History

__all__ = ["DEFAULT_PULL_SECONDS", "DEFAULT_TIME_TO_READY", "History", "decode", "encode", "learn", "time_to_ready"]
