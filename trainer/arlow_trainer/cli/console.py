"""Messages of commands to the user: on stderr, coloured only at a terminal."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.text import Text

from arlow_trainer.config.shown_text import shown


def print_error(message: str) -> None:
    """Writes an error to stderr; long lines of the message are not wrapped."""
    _print("error", "bold red", message)


def print_warning(message: str) -> None:
    """Writes a warning to stderr."""
    _print("warning", "bold yellow", message)


def print_note(message: str) -> None:
    """Writes to stderr a message that is neither an error nor a warning."""
    _print("note", "bold", message)


class ConsoleHandler(logging.Handler):
    """Writes log lines as messages to the user, with tracebacks as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        write = print_error if record.levelno >= logging.ERROR else print_warning
        write(record.getMessage())
        if record.exc_info:
            text = logging.Formatter().formatException(record.exc_info)
            sys.stderr.write(shown(text) + "\n")


def _print(level: str, style: str, message: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for line in shown(message).split("\n"):
        console.print(Text.assemble((f"{level}: ", style), line))
