"""What every test starts from."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def _unconfigured_logging() -> None:
    """As in a fresh process: capturing log lines leaves structlog configured, and commands ask whether it is."""
    structlog.reset_defaults()
