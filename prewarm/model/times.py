"""Which recorded times are believed? The API server's clock may be set back after something was recorded."""

FUTURE_SECONDS = 300.0
"""A time recorded further in the future was recorded by a clock that was wrong. Less may be a matter of two clocks."""


def believed(at: float, now: float) -> float:
    """When something happened, as recorded; 0, long ago, if that lies in the future.

    Waiting until such a time would take as long as the clock was set back. What happened long ago is due now, is done
    once more at most, and is recorded with the right time then.
    """
    return at if at <= now + FUTURE_SECONDS else 0.0
