"""How long to wait before the next try: doubling with jitter, unless the server names a time."""

from collections.abc import Callable

from msgspec import Struct
from tenacity import RetryCallState, wait_exponential_jitter

from prewarm.cluster.errors import ApiError, ServerUnreachable

_LONGEST_RETRY_AFTER = 60.0
"""A server that asks for more is tried again after this many seconds all the same."""


class Patience(Struct, frozen=True):
    """Waits between tries in seconds: `first`, doubled each time up to `longest`, plus up to `first` at random."""

    first: float = 0.2
    longest: float = 30.0

    def wait(self) -> Callable[[RetryCallState], float]:
        """As tenacity's `wait`: Retry-After takes precedence."""
        doubling = wait_exponential_jitter(multiplier=self.first, max=self.longest, jitter=self.first)

        def seconds(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, ApiError) and error.retry_after is not None:
                return min(error.retry_after, _LONGEST_RETRY_AFTER)
            return doubling(state)

        return seconds


def may_repeat(*, harmless: bool) -> Callable[[BaseException], bool]:
    """Which errors are worth the same request again.

    429 says that nothing was done: always. Other transient errors and lost answers: only if repeating is `harmless`.
    """

    def decide(error: BaseException) -> bool:
        if isinstance(error, ApiError):
            return error.code == 429 or (harmless and error.transient)
        return harmless and isinstance(error, ServerUnreachable)

    return decide
