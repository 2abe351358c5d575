"""Discrete-event time: a heap of timers, and processes written as generators."""

from collections.abc import Callable, Generator
from heapq import heappop, heappush

Steps = Generator["float | Signal", None, object]
"""A process: it yields seconds to wait, or a signal to wait for."""

FIRST, NORMAL = 0, 1
"""Order of timers that fall due at the same instant: relists come before the syncs that wait for them."""


class Timer:
    """One planned call; cancelling it is cheap, the heap drops it when it falls due."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make the timer do nothing."""
        self.callback = None


class Agenda:
    """All timers of a simulation, in order of time, then rank, then planning: so the same inputs give the same run."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._heap: list[tuple[float, int, int, Timer]] = []
        self._planned = 0

    def at(self, time: float, callback: Callable[[], None], rank: int = NORMAL) -> Timer:
        """Call back at a time; a time in the past is now."""
        timer = Timer(callback)
        self._planned += 1
        heappush(self._heap, (max(time, self.now), rank, self._planned, timer))
        return timer

    def after(self, seconds: float, callback: Callable[[], None], rank: int = NORMAL) -> Timer:
        """Call back after some seconds."""
        return self.at(self.now + seconds, callback, rank)

    def next_time(self) -> float | None:
        """When the next timer falls due."""
        while self._heap and self._heap[0][3].callback is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_until(self, now: float) -> None:
        """Run every timer that is due by `now`, each at its own time."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            time, _, _, timer = heappop(heap)
            callback = timer.callback
            if callback is not None:
                self.now = time
                timer.callback = None
                callback()
        self.now = max(self.now, now)


class Signal:
    """Something that happens once; processes that wait for it go on when it does."""

    __slots__ = ("_waiting", "fired")

    def __init__(self) -> None:
        self.fired = False
        self._waiting: list[Callable[[], None]] = []

    def fire(self) -> None:
        """Let all that wait go on, in the order in which they came."""
        if self.fired:
            return
        self.fired = True
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()

    def when_fired(self, resume: Callable[[], None]) -> None:
        """Call back when it fires; at once if it has."""
        if self.fired:
            resume()
        else:
            self._waiting.append(resume)


class Process:
    """Runs a generator on an agenda."""

    __slots__ = ("_agenda", "_done", "_steps", "_timer")

    def __init__(self, agenda: Agenda, steps: Steps, done: Callable[[], None]) -> None:
        self._agenda = agenda
        self._steps: Steps | None = steps
        self._done = done
        self._timer: Timer | None = None

    def run(self) -> None:
        """Go on until the process waits or ends."""
        steps = self._steps
        if steps is None:
            return
        try:
            wait = next(steps)
        except StopIteration:
            self._steps = None
            self._done()
            return
        if isinstance(wait, Signal):
            wait.when_fired(self.run)
        else:
            self._timer = self._agenda.after(wait, self.run)

    def cancel(self) -> None:
        """End the process where it stands; `done` is not called."""
        steps, self._steps = self._steps, None
        if self._timer is not None:
            self._timer.cancel()
        if steps is not None:
            steps.close()
