"""Structured logs: JSON lines in a pod, readable lines at a terminal, each with run and rank."""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from arlow_trainer.telemetry.display import duration
from arlow_trainer.telemetry.reports import LogFormat

LOGGER = "arlow"


def configure_logging(run: str, rank: int, log_format: LogFormat = "auto") -> None:
    """Sends every log line of the process, ours and the libraries', to stdout in one format.

    `auto` is JSON in a pod without a terminal, and text elsewhere. Libraries are heard from
    WARNING on. Calling it again replaces the former setting.
    """
    as_json = log_format == "json" or (log_format == "auto" and _in_pod_without_terminal())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
        _Bind(run, rank, as_json),
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
            structlog.processors.format_exc_info,
            _for_json,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        render = [
            _for_people,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), pad_event_to=0, sort_keys=False
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


def register_stack_dump() -> None:
    """Makes SIGUSR1 write the stack of every thread to stderr, even in a hung collective."""
    if sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)


def _in_pod_without_terminal() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not sys.stdout.isatty()


class _StandardOutput(logging.StreamHandler[TextIO]):
    """Writes to the stdout of the moment: a live display stands in for it while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> None:
        """A reader that has gone (`arlow train ... | head`) is no fault of the run."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class _Bind:
    """Adds run and rank to every line; at a terminal only what is not plain: another rank."""

    def __init__(self, run: str, rank: int, as_json: bool) -> None:
        self._fields: dict[str, Any] = {}
        if as_json:
            self._fields = {"run": run, "rank": rank}
        elif rank > 0:
            self._fields = {"rank": rank}

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {**event, **self._fields}


_JSON_FIRST = ("timestamp", "level", "run", "rank", "event")


def _for_json(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Puts what every line has in front, and writes NaN and Inf, which JSON lacks, as words."""
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
    values = {key: event.pop(key, None) for key in _STEP_WORDS}
    if values["video_loss"] is None or values["image_loss"] is None:
        values["image_loss"] = values["video_loss"] = None  # the loss says it all
    if not values["clips_per_second"]:
        values["clips_per_second"] = None
    parts += [_STEP_WORDS[key](value) for key, value in values.items() if value is not None]
    return {**event, "event": "  ".join(parts)}


_STEP_WORDS: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.4f}",
    "image_loss": lambda value: f"images {value:.4f}",
    "video_loss": lambda value: f"clips {value:.4f}",
    "images_per_second": lambda value: f"{value:,.1f} images/s",
    "clips_per_second": lambda value: f"{value:,.1f} clips/s",
    "learning_rate": lambda value: f"lr {value:.3g}",
    "grad_norm": lambda value: f"grad norm {value:.3g}",
    "loss_scale": lambda value: f"loss scale {value:g}",
    "eta_seconds": lambda value: f"ETA {duration(value)}",
}
