"""What commands say to people: on stderr, coloured only at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def print_error(message: str) -> None:
    """Writes a failure to stderr, every line of its message whole."""
    _tell("error", "bold red", message)


def print_warning(message: str) -> None:
    """Writes a warning to stderr."""
    _tell("warning", "bold yellow", message)


def print_note(message: str) -> None:
    """Writes to stderr what ended otherwise than a reader may expect, and yet well."""
    _tell("note", "bold", message)


def _tell(word: str, style: str, message: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for line in message.splitlines():
        console.print(Text.assemble((f"{word}: ", style), line))
