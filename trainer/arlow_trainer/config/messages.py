"""Messages for mistakes in a manifest: one line each with source, field, value and remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from arlow_trainer.config.allowed import describe_allowed, field_schema, resolve, run_schema
from arlow_trainer.config.mismatch import Mismatches
from arlow_trainer.config.models import ArlowPretrain
from arlow_trainer.config.shown_text import redact_urls

Path = tuple[str, ...]


class Mistake(NamedTuple):
    """One mistake: the field, the problem, and the other fields that were checked with it.

    Of a mistake in a list, `field` is the list, and `shown` the item's own path.
    """

    field: Path
    problem: str
    reads: tuple[Path, ...] = ()
    shown: Path = ()


def parse(document: dict[str, Any]) -> ArlowPretrain:
    """Validates a manifest as the YAML is written. Raises pydantic's ValidationError."""
    return ArlowPretrain.model_validate(document, by_alias=True, by_name=False)


def describe_mistakes(document: dict[str, Any], source: str) -> Iterator[str]:
    """Yields one line for every mistake of a manifest that does not validate.

    Fields are checked against each other only once each is valid by itself. So that an invalid
    field does not hide a contradiction elsewhere, it is reset to its default and the rest is
    checked again, until no new mistake is found.

    Args:
        document: the manifest.
        source: its file name or the like, which starts every line.
    """
    wrong: set[Path] = set()
    for mistake in null_characters(document):
        yield _line(mistake, source)
        wrong.add(mistake.field)
    document = _without(document, wrong)
    while True:
        try:
            parse(document)
        except ValidationError as error:
            mistakes = [m for detail in error.errors() for m in _mistakes(detail)]
        else:
            return
        for mistake in mistakes:
            if not any(_within(path, wrong) for path in (mistake.field, *mistake.reads)):
                yield _line(mistake, source)
        found = {path for mistake in mistakes for path in (mistake.field, *mistake.reads)}
        found |= {m.field[:-1] for m in mistakes if m.problem == MISSING}
        if found <= wrong or () in found:
            return
        wrong |= found
        document = _without(document, wrong)


def null_characters(node: object, field: Path = (), shown: Path = ()) -> Iterator[Mistake]:
    """Yields a mistake for every text with a null character, keys too, at `field` of a manifest.

    No path, URL or environment variable can hold one: it would fail wherever it is used first.
    """
    if isinstance(node, str) and "\0" in node:
        yield Mistake(field, _not_allowed(node, "text without a null character"), shown=shown)
    elif isinstance(node, dict):
        for key, value in node.items():
            inner, seen = (*field, str(key)), (*shown, str(key))
            if "\0" in str(key):
                yield Mistake(inner, "a key cannot hold a null character", shown=seen)
            else:
                yield from null_characters(value, inner, seen)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            # As other mistakes in a list, one of the list.
            yield from null_characters(item, field, (*shown, f"[{index}]"))


def _line(mistake: Mistake, source: str) -> str:
    field = ".".join(map(_name, mistake.shown or mistake.field)).replace(".[", "[")
    return f"{source}: {field or 'the document'}: {mistake.problem}"


MISSING = "is required and missing"
MAX_SHOWN = 60
"""Characters of a value, or of a key that nobody can have meant."""


def _mistakes(detail: ErrorDetails) -> Iterator[Mistake]:
    loc = detail["loc"]
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        loc = (*loc[:-1], str(loc[-1]))
    # A mistake in a list's item is one of the list; where the item is a section, its path is shown.
    path: Path = tuple(part for part in loc if isinstance(part, str))
    outermost: Path = tuple(map(str, takewhile(lambda part: isinstance(part, str), loc)))
    for mistake in _mistakes_at(path, detail):
        if outermost != path or (outermost != loc and mistake.field != path):
            numbered = tuple(f"[{part}]" if isinstance(part, int) else part for part in loc)
            shown = (*numbered, *mistake.field[len(path) :])
            mistake = mistake._replace(field=outermost, reads=(), shown=shown)
        yield mistake


def _mistakes_at(path: Path, detail: ErrorDetails) -> Iterator[Mistake]:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Mismatches):
        for mismatch in cause.found:
            yield Mistake(
                (*path, *filter(None, mismatch.field.split("."))),
                _not_allowed(mismatch.value, mismatch.allowed),
                tuple((*path, *name.split(".")) for name in mismatch.reads),
            )
    elif detail["type"] == "missing":
        yield Mistake(path, MISSING)
    elif detail["type"] in ("extra_forbidden", "invalid_key"):
        yield Mistake(path, f"unknown field (value {as_text(detail['input'])}){_suggest(path)}")
    else:
        yield Mistake(path, _not_allowed(detail["input"], _allowed(path, detail)))


def _allowed(field: Path, detail: ErrorDetails) -> str:
    schema = field_schema(field) if field else run_schema()
    return describe_allowed(schema) if schema else detail["msg"]


def _not_allowed(value: object, allowed: str) -> str:
    return f"{as_text(value)} is not allowed; allowed: {allowed}"


def _name(part: str) -> str:
    return part if part.isprintable() and len(part) <= MAX_SHOWN else as_text(part)


def as_text(value: object, max_length: int = MAX_SHOWN) -> str:
    """Returns a value on one printable line, as YAML would write it, shortened if it is long.

    Without the credentials of URLs in it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        if not text.isprintable():
            text = json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):  # odd keys, 10,000-digit numbers, loops
        text = f"this {type(value).__name__}"
    text = redact_urls(text)
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def _suggest(path: Path) -> str:
    """Returns the field that was probably meant, or else all fields of the section, as text."""
    section = field_schema(path[:-1]) if path[:-1] else run_schema()
    known = [name for name in resolve(section or {}).get("properties", {}) if name != "status"]
    close = difflib.get_close_matches(path[-1][:MAX_SHOWN], known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(known)}"


def _within(path: Path, others: set[Path]) -> bool:
    return any(path[:length] in others for length in range(1, len(path) + 1))


def _without(node: Any, paths: set[Path], here: Path = ()) -> Any:
    if not isinstance(node, dict):
        return node
    return {
        key: _without(value, paths, (*here, str(key)))
        for key, value in node.items()
        if (*here, str(key)) not in paths
    }
