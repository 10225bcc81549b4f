"""Files that commands write."""

from __future__ import annotations

from pathlib import Path

from arlow_trainer.config.errors import ConfigError, StoreError


def check_ending(path: Path, ending: str) -> None:
    """Raises ConfigError unless a file to write has the ending of its format."""
    if path.suffix.lower() != ending:
        raise ConfigError(
            f"--out {path}: this writes a {ending[1:].upper()} file: end it in {ending}"
        )


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, and the folder it lies in where that is missing. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; give another --out"
        ) from error
