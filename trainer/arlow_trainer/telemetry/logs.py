"""Structured logs: readable lines at a terminal, JSON elsewhere, each with run and rank."""

from __future__ import annotations

import logging
import math
import sys
import traceback
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from arlow_trainer.config.shown_text import shown
from arlow_trainer.storage.process_log import current
from arlow_trainer.telemetry.reports import LogFormat
from arlow_trainer.telemetry.scalars import SCALARS, texts

LOGGER = "arlow"


def configure_logging(run: str, rank: int, log_format: LogFormat = "auto") -> None:
    """Sends every log line of the process, ours and the libraries', to stdout in one format.

    `auto` is text at a terminal, and JSON elsewhere. Libraries log from WARNING on.
    Calling it again replaces the former setting.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
        _AddRunAndRank(run, rank, as_json),
        _safe_to_show,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    render: list[Processor]
    if as_json:
        render = [
            structlog.processors.ExceptionRenderer(_traceback),
            _for_json,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        render = [
            _for_people,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(),
                pad_event_to=0,
                sort_keys=False,
                exception_formatter=_write_traceback,
            ),
        ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _StandardOutput)]:
        root.removeHandler(handler)
    handler = _StandardOutput()
    handler.setFormatter(formatter)
    root.addHandler(handler)
    logging.getLogger(LOGGER).setLevel(logging.INFO)


def logger() -> structlog.stdlib.BoundLogger:
    """Returns the project's logger."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(LOGGER)
    return bound


class _StandardOutput(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stdout`, which a live display replaces while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line; also to the process's log where that does not take it from stdout."""
        super().emit(record)
        log = current()
        if log is not None and sys.stdout.isatty():
            log.write(f"{self.format(record)}\n")

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignores a reader that has ended (`arlow train ... | head`)."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class _AddRunAndRank:
    """Adds run and rank to every JSON line; to a line of text only a rank that is not 0."""

    def __init__(self, run: str, rank: int, as_json: bool) -> None:
        self._fields: dict[str, Any] = {}
        if as_json:
            self._fields = {"run": run, "rank": rank}
        elif rank > 0:
            self._fields = {"rank": rank}

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {**event, **self._fields}


def _safe_to_show(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Removes credentials of URLs, and what a terminal would obey: others wrote names and texts."""
    return {key: shown(value) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(exc_info: ExcInfo) -> str:
    """Returns a traceback without the values of variables: credentials are among them."""
    return shown("".join(traceback.format_exception(*exc_info)).rstrip("\n"))


def _write_traceback(to: TextIO, exc_info: ExcInfo) -> None:
    to.write(f"\n{_traceback(exc_info)}")


_JSON_FIRST = ("timestamp", "level", "run", "rank", "event")


def _for_json(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Puts what every line has in front, and writes NaN and Inf, which JSON lacks, as strings."""
    ordered = {key: event.pop(key) for key in _JSON_FIRST if key in event} | dict(event)
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in ordered.items()
    }


def _for_people(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Makes sentences of steps and reasons, and shortens numbers elsewhere."""
    if event.get("event") == "step" and "total_steps" in event:
        return _step_sentence(event)
    reason = event.pop("reason", None)
    if reason is not None:
        subject = f"{event['event']} {event.pop('name', '')}".rstrip()
        event["event"] = f"{subject}: {reason}"
    return {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in event.items()}


def _step_sentence(event: EventDict) -> EventDict:
    parts = [f"step {event.pop('step'):,}/{event.pop('total_steps'):,}"]
    parts += [text for _, text in texts({name: event.pop(name, None) for name in SCALARS})]
    return {**event, "event": "  ".join(parts)}
