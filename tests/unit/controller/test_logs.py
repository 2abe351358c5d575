"""What people read in the log: our decisions, not the libraries' bookkeeping."""

import logging
from collections.abc import Iterator

import pytest

from prewarm.controller.logs import configure_logging
from prewarm.controller.settings import LogFormat, LogLevel, Settings


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    names = ("kopf.objects", "kopf.activities", "kopf._core.reactor.running", "aiohttp.access", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_libraries_are_silent_about_their_routine(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_level=LogLevel.DEBUG, log_format=LogFormat.JSON))
    logging.getLogger("kopf.objects").info("Handler 'imagecaches-seen' succeeded.")
    logging.getLogger("kopf._core.reactor.running").warning("OS signals are ignored: running not in the main thread.")
    assert capsys.readouterr().err == ""


def test_trouble_of_libraries_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format=LogFormat.JSON))
    logging.getLogger("kopf.objects").warning("Handler failed")
    logging.getLogger("prewarm.decisions").info("planned")
    assert len(capsys.readouterr().err.splitlines()) == 2
