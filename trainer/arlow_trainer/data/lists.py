"""Data sets that are lists of paths or URLs: text, csv, JSON lines, or a column of parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from arlow_trainer.config import Modality, SourceSection
from arlow_trainer.config.errors import ArlowError, DataError
from arlow_trainer.data.errors import access_error, root_cause
from arlow_trainer.data.file_names import store_names
from arlow_trainer.data.files import ListedSource
from arlow_trainer.data.formats import TABLES, extension
from arlow_trainer.storage.options import access_to
from arlow_trainer.storage.remote_files import read_file
from arlow_trainer.storage.retries import with_retries

LISTS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
# What columns of paths are called, with the modality put in; the first that is there is taken.
_COLUMNS = (
    *("{}", "{}_path", "{}_url", "{}_file", "path", "file_path", "filepath", "file_name"),
    *("filename", "file", "url"),
)


def open_list(section: SourceSection, url: str, modality: Modality) -> ListedSource:
    """Opens a list of media files; relative paths are meant from the list's own folder.

    A text file names one on each line. In a table (csv with a header, JSON lines, parquet) they
    stand in the section's column, or in one called `image`, `image_path`, `path`, `file_name`,
    `url` or the like. Raises DataError, CredentialsError, StoreError.
    """
    folder = url.rpartition("/")[0] or "."

    def full(location: str) -> str:
        if "://" in location or location.startswith("/"):
            return location
        return f"{folder}/{location}"

    try:
        locations = store_names(full(each) for each in _locations(section, url, modality))
    except (ArlowError, MemoryError):
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{section.path} is no text in UTF-8: {error}; write it anew") from error
    except (ValueError, KeyError, csv.Error) as error:
        raise DataError(
            f"{section.path}: cannot be read as a list of {modality}s: {root_cause(error)}; write "
            "one path or URL a line in a .txt file, or a table with a column of them"
        ) from error
    return ListedSource(section.path, locations, access_to(section))


def _locations(section: SourceSection, url: str, modality: Modality) -> Iterator[str]:
    if extension(url) in TABLES:
        yield from _of_table(section, url, modality)
        return
    try:
        fs, path = access_to(section).connect(url)
        content = with_retries(section.path, lambda: read_file(fs, path))
    except Exception as error:
        raise access_error(section.path, error) from error
    # A line at a time: a list may name more files than their names have room in memory.
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    if extension(url) == ".csv":
        yield from _of_rows(section, csv.DictReader(text), modality)
        return
    if extension(url) == ".tsv":
        yield from _of_rows(section, csv.DictReader(text, delimiter="\t"), modality)
        return
    lines = filter(None, (line.strip() for line in text))
    if extension(url) == ".txt":
        yield from lines
    else:
        yield from _of_rows(section, map(json.loads, lines), modality)


def _of_table(section: SourceSection, url: str, modality: Modality) -> Iterator[str]:
    import pyarrow.parquet as pq

    try:
        fs, path = access_to(section).connect(url)
        with fs.open(path, "rb") as opened:
            file = pq.ParquetFile(opened)
            column = _column(section, file.schema_arrow.names, modality)
            for batch in file.iter_batches(columns=[column]):
                yield from (str(each) for each in batch.column(0).to_pylist() if each is not None)
    except ArlowError:
        raise
    except Exception as error:
        raise access_error(section.path, error) from error


def _of_rows(section: SourceSection, rows: Iterator[Any], modality: Modality) -> Iterator[str]:
    column: str | None = None
    for row in rows:
        if isinstance(row, str):
            yield row
            continue
        if not isinstance(row, dict):
            raise ValueError(f"a line holds {type(row).__name__}, neither a text nor an object")
        if column is None:
            column = _column(section, list(row), modality)
        if row.get(column):
            yield str(row[column])


def _column(section: SourceSection, columns: list[str], modality: Modality) -> str:
    names = [section.column] if section.column else [each.format(modality) for each in _COLUMNS]
    for name in names:
        if name in columns:
            return name
    raise DataError(
        f"{section.path} has no column of paths or URLs ({', '.join(names)}); name one with "
        f"data.{modality}s.column (columns: {', '.join(map(str, columns))})"
    )
