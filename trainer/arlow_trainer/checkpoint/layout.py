"""Names in a run's folder, and the manifest of a checkpoint. Pure: no I/O.

A run URL `<checkpoint url>/<run name>/` holds `run.json`, `checkpoint-<step>/`, `pictures/`,
`tensorboard/`, `events.jsonl` and `lease.json`. A checkpoint exists when its `manifest.json`,
written last, is valid. Until then its folder holds a mark, `save.json`, written first: it tells
what this program left unfinished from what somebody else put there.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from arlow_trainer.storage.json_text import parse_json

MANIFEST = "manifest.json"
SAVE_MARK = "save.json"

# At most 18 digits, so that a step is an integer of 64 bits.
_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]{0,17})")

Attempt = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after `step` optimiser steps."""
    if step < 0:
        raise ValueError(f"a step is 0 or more, not {step}")
    return f"checkpoint-{step}"


def checkpoint_step(name: str) -> int | None:
    """The step of a folder's name, or None where it is not a checkpoint's."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match.group(1)) if match else None


def manifest_key(step: int) -> str:
    """Key of a checkpoint's manifest, relative to the run URL."""
    return f"{checkpoint_name(step)}/{MANIFEST}"


def save_mark_key(step: int) -> str:
    """Key of the mark of an unfinished save or deletion, relative to the run URL."""
    return f"{checkpoint_name(step)}/{SAVE_MARK}"


def check_file_name(name: str) -> str:
    """Returns `name` if it may name a file of a checkpoint: relative, forward slashes, no dots-only
    part, printable, neither manifest nor mark. Raises ValueError otherwise."""
    inside = all(part not in ("", ".", "..") for part in name.split("/"))
    if "\\" in name or not inside or not name.isprintable():
        raise ValueError(f"{name!r} is not a relative path inside a checkpoint")
    if name == MANIFEST:
        raise ValueError(f"{name!r} is reserved for the checkpoint's manifest")
    if name == SAVE_MARK:
        raise ValueError(f"{name!r} is reserved for the mark of an unfinished save")
    return name


class SaveMark(BaseModel):
    """Says that a checkpoint's folder without a manifest is a save, or a deletion, that was cut.

    Attributes:
        step: the checkpoint's; a mark that was copied to another folder proves nothing.
        attempt: of the process group that saves; None for a checkpoint being deleted.
        started: UTC.
    """

    model_config = ConfigDict(frozen=True)

    step: Annotated[int, Field(ge=0)]
    attempt: Attempt | None
    started: datetime

    def to_bytes(self) -> bytes:
        """The mark as it is stored."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def proves(cls, data: bytes, step: int) -> bool:
        """Whether an object's content is the mark of a step."""
        try:
            return cls.model_validate_json(data).step == step
        except ValidationError:
            return False


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 (hex) of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a committed checkpoint holds. Written last; without a valid one there is no checkpoint.

    Stored as JSON with a digest of itself, so that a changed byte of the manifest is detected like
    one of the files it names.

    Attributes:
        step: optimiser steps done.
        created: UTC.
        attempt: identifies the process group that wrote it.
        ranks: the number of ranks of that group.
        files: every file's path, relative to the checkpoint, with its size and hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    step: Annotated[int, Field(ge=0)]
    created: datetime
    attempt: Attempt
    ranks: Annotated[int, Field(ge=1)]
    files: dict[str, FileRecord]

    @model_validator(mode="after")
    def _names_are_inside(self) -> Self:
        for name in self.files:
            check_file_name(name)
        return self

    @model_validator(mode="after")
    def _created_in_utc(self) -> Self:
        if self.created.utcoffset() != UTC.utcoffset(None):
            raise ValueError("created must be a UTC time")
        return self

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(record.size for record in self.files.values())

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        content = self.model_dump(mode="json")
        content["digest"] = _digest(content)
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads what `to_bytes` wrote; raises ValueError (one line) when anything is off."""
        content = parse_json(data)
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        digest = content.pop("digest", None)
        if digest != _digest(content):
            raise ValueError("its digest does not match its content")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _digest(content: dict[str, object]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
