"""Lets what can wait do so while something more urgent goes on, but not for ever."""


class Forbearance:
    """Since when something has been awaited without a break, and whether others still wait for it."""

    def __init__(self, longest: float) -> None:
        """`longest`: seconds after which others wait no longer, until nothing was awaited in between."""
        self._longest = longest
        self._since: float | None = None

    def waits(self, awaited: bool, now: float) -> bool:
        """Whether others wait now, given whether something is awaited."""
        if not awaited:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now < self._since + self._longest
