"""What the API server would not take."""

from msgspec import Struct

from prewarm.puller.pods import Order


class Refusal(Struct, frozen=True):
    """What the API server said to the creation of a puller pod."""

    order: Order
    message: str
    at: float
    """Of the last refusal, Unix seconds."""
    times: int = 1
