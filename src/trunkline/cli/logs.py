"""What the log looks like: JSON lines in a pipe, readable on a terminal; always on stderr."""

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """Structured logs from `level` (`debug` to `error`) on."""
    render: list[structlog.typing.Processor]
    if sys.stderr.isatty():
        render = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
