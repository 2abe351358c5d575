"""What time is it for the API server? Its clock stamps what decisions compare with the present: creation, start, end.

Our own clock may be wrong or jump: a pod that was created a moment ago would be long past its deadline, and a retry
that was put off for ten seconds would wait for a day.
"""

from collections.abc import Callable
from email.utils import parsedate_to_datetime

TOLERANCE_SECONDS = 2.0
"""The Date header (RFC 9110, 6.6.1) holds whole seconds, and answers take a moment."""

_Clock = Callable[[], float]


class ServerClock:
    """Unix time that goes on with a steady clock and is set by the Date headers of the API server's answers."""

    def __init__(self, wall: _Clock, steady: _Clock) -> None:
        """`wall` counts until the first answer, and as long as it agrees with the server."""
        self._wall = wall
        self._steady = steady
        self._offset: float | None = None
        self._doubt: float | None = None
        self._heard = ""

    def now(self) -> float:
        """Unix seconds."""
        return self._wall() if self._offset is None else self._steady() + self._offset

    def heard(self, date: str) -> None:
        """Take an answer's Date header; one that cannot be read says nothing.

        A time that differs is believed once a second answer confirms it: the first may have waited for us.
        """
        if date == self._heard:
            return
        self._heard = date
        try:
            told = parsedate_to_datetime(date).timestamp() + 0.5
        except (ValueError, TypeError):
            return
        steady = self._steady()
        if self._offset is None:
            wall = self._wall()
            self._offset = (wall if abs(wall - told) <= TOLERANCE_SECONDS else told) - steady
            return
        offset = told - steady
        if abs(offset - self._offset) <= TOLERANCE_SECONDS:
            self._doubt = None
        elif self._doubt is not None and abs(offset - self._doubt) <= TOLERANCE_SECONDS:
            self._offset, self._doubt = offset, None
        else:
            self._doubt = offset
