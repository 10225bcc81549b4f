"""YAML as users mean it: no key twice, `1e-3` a number, problems in one line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml


class YamlProblem(Exception):
    """A text is not the YAML it should be; `line` counts from 1, None where it is not known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            # `<<` merges a mapping and may stand beside another `<<`.
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} stands here twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes a number without a point or a signed exponent for text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_documents(text: str) -> list[Any]:
    """Returns the documents of a YAML text, empty ones left out. Raises YamlProblem."""
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
        # A date or number that looks like one and is none: 2026-13-01.
        raise YamlProblem(str(error)) from None
    except RecursionError:
        raise YamlProblem("nested too deeply") from None
