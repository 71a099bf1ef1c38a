"""Logging: one JSON line (or one readable line) per state change, on standard error.

User text never reaches a log line raw: structlog's renderers escape it, and `broker.session` logs only ids it has
checked. The logger is set up once, by the command line.
"""

from __future__ import annotations

import logging
import sys

import structlog

from broker.config import LogConfig

__all__ = ["configure"]


def configure(config: LogConfig) -> None:
    """Send log lines of ``config.level`` and above to standard error in ``config.format``."""
    renderer: structlog.typing.Processor
    if config.format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[config.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
