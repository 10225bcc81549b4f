"""YAML as kubectl reads it, so that a manifest means the same in a file and in a cluster.

kubectl (sigs.k8s.io/yaml, which is go-yaml 2) turns YAML 1.1 into JSON: `y` is true, `0o17` is 15,
`10.0` is the whole number 10, `1:30` and dates are text. What it reads in a way that hardly anyone
means, or refuses, is refused here: a number with a leading zero, a key that is given twice (the
last wins), a merge that takes over a key above it, the tag `!`, .inf and .nan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

# `kubectl apply` keeps the object in an annotation, of which an object may have that much.
MAX_BYTES = 256 * 1024
# Aliases count as what they stand for. A run with what a cluster adds to it has hundreds.
MAX_VALUES = 5_000
MAX_DEPTH = 50

_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_WHOLE = re.compile(r"[-+]?([0-9]+|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNDERSCORE_ASTRAY = re.compile(r"(?<![0-9])_|_(?![0-9])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE_NUMBERS = range(-(2**63), 2**64)
# From here on Go writes a whole number with an exponent.
_EXPONENT_FROM = 1e21
_TAB = (
    "a tab where kubectl takes spaces alone: indent with spaces, and quote a text with a tab in it"
)


class YamlProblem(Exception):
    """A text is not YAML, or not read as anything; `line` counts from 1, None where not known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read_documents(text: str | bytes) -> list[Any]:
    """Returns the documents of a YAML text, without empty ones.

    Mappings have text as keys; values are what JSON has: no dates, no NaN. Raises YamlProblem, and
    UnicodeDecodeError for bytes that are not UTF-8.
    """
    if len(text) > MAX_BYTES:
        raise YamlProblem(f"a manifest has at most {MAX_BYTES // 1024} KiB")
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    loader = None
    try:
        loader = _Loader(text)
        documents = list(loader.documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"not valid YAML: {error.problem or error}"
        raise YamlProblem(problem, mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"not valid YAML: {error.reason} (#x{error.character:04x})"
        raise YamlProblem(problem, line) from None
    except (ValueError, OverflowError):
        # PyYAML turns digits into characters and numbers without a look at their size.
        problem = "not valid YAML: an escape or a number of a directive is out of range"
        raise YamlProblem(problem, loader.line + 1 if loader else None) from None
    return [document for document in documents if document is not None]


def read_scalar(text: str) -> Any:
    """Returns the value of an unquoted scalar. Raises YamlProblem where it is refused."""
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise YamlProblem(f"{text} is not a number that JSON can hold")
    if text[0] not in "+-.0123456789":
        return text
    if text[0] == "." and _UNDERSCORE_ASTRAY.search(text):
        return text
    digits = text.replace("_", "")
    if _LEADING_ZERO.fullmatch(digits):
        raise YamlProblem(
            f"{text} has a leading zero, and kubectl reads it as octal or as decimal depending on "
            "its digits; leave the zero out, or quote it where text is meant"
        )
    if (whole := _whole(digits)) is not None:
        return whole
    number = float(digits) if _FLOAT.fullmatch(digits) else float("inf")
    if abs(number) == float("inf"):
        return text
    return int(number) if number.is_integer() and abs(number) < _EXPONENT_FROM else number


def _whole(digits: str) -> int | None:
    """Returns what digits stand for; None where kubectl reads them as a float, or as text."""
    if not _WHOLE.fullmatch(digits) or len(digits) > 70:
        return None
    whole = int(digits, 0)
    return whole if whole in _WHOLE_NUMBERS else None


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner, parser and composer, with limits; values are made here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._open: list[Node] = []

    def documents(self) -> Iterator[Any]:
        while self.check_node():
            self._values = 0
            node = self.get_node()
            assert node is not None
            self._values = 0
            yield self._value(node)

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else f"{_TAG}str"
        return f"{_TAG}map" if kind is MappingNode else f"{_TAG}seq"

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        # Here, since the scanner reads far ahead of the composer.
        if self.flow_level >= MAX_DEPTH:
            raise YamlProblem(f"nested more than {MAX_DEPTH} deep", self.line + 1)
        super().fetch_flow_collection_start(token)

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        # As in libyaml: a tab may stand where it cannot be taken for indentation.
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()
        if self.peek() == "\t":
            raise YamlProblem(_TAB, self.line + 1)

    def scan_plain(self) -> yaml.ScalarToken:
        token: yaml.ScalarToken = super().scan_plain()
        ahead = 0
        while self.peek(ahead) in " \t":
            ahead += 1
        if "\t" in self.prefix(ahead) and self.peek(ahead) not in "\0\r\n#:,]}":
            raise YamlProblem(_TAB, self.line + 1)
        return token

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: yaml.NodeEvent = self.peek_event()  # type: ignore[no-untyped-call]
        assert event.start_mark is not None
        line: int = event.start_mark.line
        self._count(line)
        if isinstance(event, yaml.ScalarEvent) and event.tag == "!":
            raise YamlProblem(
                "leave the tag ! out, and quote the value where text is meant", line + 1
            )
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlProblem(f"nested more than {MAX_DEPTH} deep", line + 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _count(self, line: int) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise YamlProblem(f"more than {MAX_VALUES:,} values, aliases counted in full", line + 1)

    def _value(self, node: Node) -> Any:
        self._count(node.start_mark.line)
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if node in self._open:
            _refuse(node, "an alias stands for what holds it")
        if len(self._open) >= MAX_DEPTH:
            _refuse(node, f"nested more than {MAX_DEPTH} deep")
        self._open.append(node)
        value: Any
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            value = self._mapping(node)
        elif isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            value = [self._value(item) for item in node.value]
        else:
            _refuse(node, f"unknown tag {node.tag}")
        self._open.pop()
        return value

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        merged: dict[str, Any] | None = None
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PLAIN and key_node.value == "<<":
                if merged is not None:
                    _refuse(key_node, "<< is given twice; give it one list, `<<: [*a, *b]`")
                merged = {}
                several = isinstance(value_node, SequenceNode)
                for each in value_node.value if several else [value_node]:
                    if not isinstance(each, MappingNode):
                        _refuse(each, "<< takes a mapping, or a list of mappings")
                    # Of several, the first has the last word.
                    merged = {**self._value(each), **merged}
                if taken_over := merged.keys() & own.keys():
                    name = min(taken_over)
                    _refuse(
                        key_node,
                        f"<< holds {name}, which is given above it: kubectl takes that of <<; put "
                        f"<< above {name} to keep the other, or leave {name} out",
                    )
                continue
            key = self._key(key_node)
            if key in own:
                _refuse(key_node, f"not valid YAML: duplicate key {key}")
            own[key] = self._value(value_node)
        return {**(merged or {}), **own}

    def _key(self, node: Node) -> str:
        key = self._value(node)
        if isinstance(key, bool):
            return "true" if key else "false"
        if not isinstance(key, str | int):
            _refuse(node, "a key must be text")
        return str(key)


def _scalar(node: ScalarNode) -> Any:
    text, tag = str(node.value), node.tag.removeprefix(_TAG)
    if _SURROGATE.search(text):
        _refuse(node, "not valid YAML: an escape stands for half of a surrogate pair")
    if tag in ("str", "timestamp"):
        return text
    try:
        value = read_scalar(text)
    except YamlProblem as problem:
        _refuse(node, str(problem))
    kinds: dict[str, type | tuple[type, ...]] = {
        _PLAIN: object,
        "bool": bool,
        "int": int,
        "float": (int, float),
        "null": type(None),
    }
    if tag not in kinds:
        _refuse(node, f"unknown tag {node.tag}")
    if (
        not isinstance(value, kinds[tag])
        or (tag in ("int", "float") and isinstance(value, bool))
        or (tag == "int" and _whole(text.replace("_", "")) is None)
    ):
        _refuse(node, f"{text} is no {tag}")
    return value


def _refuse(node: Node, problem: str) -> NoReturn:
    raise YamlProblem(problem, node.start_mark.line + 1)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that kubectl would read as something else."""


def _represent_text(dumper: _Dumper, text: str) -> ScalarNode:
    quotes = None if _is_plain(text) else "'"
    return dumper.represent_scalar(f"{_TAG}str", text, quotes if text.isprintable() else '"')


def _is_plain(text: str) -> bool:
    try:
        return isinstance(read_scalar(text), str)
    except YamlProblem:
        return False


_Dumper.add_representer(str, _represent_text)


def write_document(document: Any) -> str:
    """Returns a document as YAML that kubectl and `read_documents` read as it is."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
