"""What every test starts from."""

import signal

import pytest
import structlog
from hypothesis import settings


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, which children inherit: here they have to heed it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes is the machine's affair: benchmarks tell of speed.
    settings.register_profile("prewarm", deadline=None)
    settings.load_profile("prewarm")


@pytest.fixture(autouse=True)
def _unconfigured_logging() -> None:
    """As in a fresh process: capturing log lines leaves structlog configured, and commands ask whether it is."""
    structlog.reset_defaults()
