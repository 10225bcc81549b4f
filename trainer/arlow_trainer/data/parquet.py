"""Which tables hold images or videos, by their schemas alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arlow_trainer.config import Modality
from arlow_trainer.data.formats import TABLES, extension
from arlow_trainer.storage.options import Access

_MOST_READ = 64
_DIGITS = re.compile(r"[0-9]+")


def media_tables(
    urls: Sequence[str], modality: Modality, column: str | None, access: Access
) -> list[str]:
    """Returns those of the tables that hold images or videos, or the `column` asked for.

    Of tables whose names differ in numbers alone, one is read for all. A table that cannot be read
    is among them: opening it says what is wrong.
    """
    of_name: dict[str, bool] = {}
    found = []
    for url in urls:
        name = _DIGITS.sub("#", url)
        if name not in of_name:
            of_name[name] = len(of_name) >= _MOST_READ or _holds_media(url, column, access)
        if of_name[name]:
            found.append(url)
    return found


def media_column_in(schema: pa.Schema, modality: Modality, column: str | None) -> str | None:
    """Returns the name of the column to read; None where there is none or several may be meant."""
    if column is not None:
        return column if column in schema.names else None
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = about.get("info", {}).get("features", {})
    typed = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and str(feature.get("_type", "")).lower() == modality
    ]
    candidates = typed or [field.name for field in schema if _is_media(field.type)]
    if modality in candidates:
        return modality
    return candidates[0] if len(candidates) == 1 else None


def read_schema(url: str, access: Access) -> pa.Schema:
    """Reads a table's schema. Raises what the file system and pyarrow do."""
    fs, path = access.connect(url)
    with fs.open(path, "rb") as file:
        if TABLES[extension(url)] == "parquet":
            return pq.read_schema(file)
        try:
            return pa.ipc.open_stream(file).schema
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_file(file).schema


def _holds_media(url: str, column: str | None, access: Access) -> bool:
    try:
        schema = read_schema(url, access)
    except Exception:  # opening it says what is wrong
        return True
    if column is not None:
        return column in schema.names
    return any(_is_media(field.type) for field in schema)


def _is_media(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
