"""Files that commands write."""

from __future__ import annotations

from pathlib import Path

from arlow_trainer.config.errors import ConfigError, StoreError


def check_suffix(path: Path, suffix: str) -> None:
    """Raises ConfigError unless a file to write has the suffix of its format, such as `.png`."""
    if path.suffix.lower() != suffix:
        raise ConfigError(
            f"--out {path}: this command writes a {suffix[1:].upper()} file; give a name that "
            f"ends in {suffix}"
        )


def write_file(path: Path, content: bytes) -> None:
    """Writes a file and creates its folder if needed. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; give another --out"
        ) from error
