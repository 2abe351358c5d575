"""Planning that goes on beside other work can be asked to wait, at points where nothing is half done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Wait = Callable[[], None]
"""Returns once planning may go on; what it raises ends it."""


def _at_once() -> None:
    return


_WAIT: ContextVar[Wait] = ContextVar("wait", default=_at_once)


@contextmanager
def waiting_between_steps(wait: Wait) -> Iterator[None]:
    """Have this called before each pod that replays place, and now and then before; no plan depends on it."""
    before = _WAIT.set(wait)
    try:
        yield
    finally:
        _WAIT.reset(before)


def between_steps() -> Wait:
    """What is to be called between two steps; it does nothing by default."""
    return _WAIT.get()
