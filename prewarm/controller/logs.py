"""Structured log lines: ours, kopf's and every library's in one stream and one form."""

import logging
import sys

import structlog

from prewarm.controller.settings import LogFormat, Settings

_QUIET = {
    "kopf.activities": logging.WARNING,
    # Each handled watch event is a line with all of kopf's settings in it.
    "kopf.objects": logging.WARNING,
    # Warns that signals are ignored outside of the main thread: ours handles them.
    "kopf._core.reactor.running": logging.ERROR,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
}
"""Loggers whose less severe lines say nothing about prewarm's decisions."""


def configure_logging(settings: Settings) -> None:
    """Send structlog and standard logging through the same renderer to standard error."""
    level = getattr(logging, settings.log_level.value.upper())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_renderers(settings.log_format))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, least))


def _renderers(form: LogFormat) -> list[structlog.types.Processor]:
    console = form is LogFormat.CONSOLE or (form is LogFormat.AUTO and sys.stderr.isatty())
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if console:
        return [remove, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [remove, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
