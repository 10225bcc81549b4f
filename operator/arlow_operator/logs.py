"""Structured logs: a JSON line each, or readable lines at a terminal, with the run they are of."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import Processor

of_run = bound_contextvars
"""Adds `namespace` and `run` to all that is logged within it."""


def configure_logging() -> None:
    """Sends every log line of the process, ours and the libraries', to stderr in one format."""
    chain: list[Processor] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    render: list[Processor] = [structlog.dev.ConsoleRenderer()]
    if not sys.stderr.isatty():
        render = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=chain,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # A line for every event that was handled and every question of the kubelet's says nothing.
    for name in ("kopf.objects", "kopf.activities.probe", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
