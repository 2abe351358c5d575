"""Shows what happens while it happens: a live line on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from e2e.demo.rollouts import State
from prewarm.model.outcomes import Outcome

_PLAIN_SECONDS = 5.0


class Display:
    """Progress of steps and rollouts on a console."""

    def __init__(self, console: Console, replicas: int) -> None:
        self.console = console
        self._replicas = replicas
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        self.console.print(Text.assemble((f"{time.monotonic() - self._began:6.1f} s  ", "dim"), text), soft_wrap=True)

    @contextmanager
    def rollout(self, title: str) -> Iterator["RolloutDisplay"]:
        """Show one rollout while the block runs."""
        self.step(title)
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            yield RolloutDisplay(live, self.console, self._replicas)


class RolloutDisplay:
    """Told about a rollout's state every quarter of a second."""

    def __init__(self, live: Live, console: Console, replicas: int) -> None:
        self._live = live
        self._console = console
        self._replicas = replicas
        self._began = self._printed = time.monotonic()

    def __call__(self, state: State) -> None:
        """Show it."""
        now = time.monotonic()
        recorder = state.recorder
        ready = sum(start.ready is not None for start in recorder.starts.values())
        found = sum(outcome in {Outcome.HIT_PREWARMED, Outcome.HIT_PRESENT} for outcome in state.outcomes.values())
        hits = f", hits {found} of {len(state.outcomes)} judged" if state.outcomes else ""
        line = (
            f"{now - self._began:5.1f} s  nodes warm {state.warm_nodes}, pods created {len(recorder.starts)}"
            f"/{self._replicas}, started {recorder.started}, ready {ready}{hits}"
        )
        if self._console.is_terminal:
            table = Table.grid(padding=(0, 1))
            table.add_row("         ", _bar(recorder.started, self._replicas), line)
            self._live.update(table)
        elif now - self._printed >= _PLAIN_SECONDS:
            self._printed = now
            self._console.print(f"          {line}", highlight=False, soft_wrap=True)


def _bar(done: int, total: int, width: int = 20) -> Text:
    filled = width * done // max(1, total)
    return Text("█" * filled, style="green") + Text("░" * (width - filled), style="dim")
