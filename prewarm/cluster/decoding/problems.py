"""Says once of each object what could not be understood in it."""

import sys
from collections.abc import Callable

Report = Callable[[str], None]
"""Takes one problem of the object at hand."""

_REMEMBERED = 10_000
_LONGEST_MESSAGE = 300


class Problems:
    """Logs each object's problems once; bounded, so that a cluster full of nonsense cannot fill memory or logs."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, str]] = set()
        self.count = 0

    def report(self, kind: str, namespace: str, name: str, problem: str) -> None:
        """Count a problem of an object, and log it if it is the object's first."""
        self.count += 1
        key = (kind, namespace, name)
        if key in self._seen or len(self._seen) >= _REMEMBERED:
            return
        self._seen.add(key)
        import structlog  # takes 0.1 s, and a sound snapshot never needs it

        problem = " ".join(problem.split())[:_LONGEST_MESSAGE]
        log = structlog.get_logger(__name__)
        if not structlog.is_configured():
            # A command's standard output is its result, which programs read.
            log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        log.warning("object not fully understood", kind=kind, namespace=namespace, name=name, problem=problem)
