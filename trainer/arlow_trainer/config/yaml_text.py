"""Reads YAML strictly: duplicate keys are errors, `1e-3` is a number, problems fit on a line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml


class YamlProblem(Exception):
    """A text is not valid YAML; `line` counts from 1 and is None where it is not known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            # `<<` merges a mapping and may be repeated.
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key.value}", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


# PyYAML implements YAML 1.1, in which 1e-3, without a point, is text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_documents(text: str) -> list[Any]:
    """Returns the documents of a YAML text, without empty ones. Raises YamlProblem."""
    try:
        documents = yaml.load_all(text, Loader=_Loader)
        return [document for document in documents if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(error.problem or str(error), mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(f"{error.reason} (#x{error.character:04x})", line) from None
    except ValueError as error:
        # An invalid date or number, such as 2026-13-01.
        raise YamlProblem(str(error)) from None
    except RecursionError:
        raise YamlProblem("nested too deeply") from None
