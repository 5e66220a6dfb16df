"""How the service speaks to its operator: JSON lines on stderr, or coloured lines on a terminal.

No secret, token, address of a database or raw answer of a store is ever logged; callers log ids and classes.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure() -> None:
    """Set up logging for this process; libraries' own loggers are routed through the same lines."""
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("uvicorn.access", "procrastinate", "psycopg.pool", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def logger(room: str) -> structlog.stdlib.BoundLogger:
    """The logger of one room."""
    return structlog.stdlib.get_logger(room)
