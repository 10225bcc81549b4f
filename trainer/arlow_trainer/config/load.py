"""Loads a run from a manifest or a preset, with `--set path=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from arlow_trainer.config.errors import ConfigError
from arlow_trainer.config.messages import describe_mistakes, null_characters, parse
from arlow_trainer.config.models import API_VERSION, KIND, ArlowPretrain, RunSpec
from arlow_trainer.config.presets import PRESETS, apply_preset
from arlow_trainer.config.shown_text import redact_tree
from arlow_trainer.config.yaml_text import (
    MAX_BYTES,
    YamlProblem,
    read_documents,
    write_document,
)


def load_run(source: str, overrides: Sequence[str] = ()) -> ArlowPretrain:
    """Loads a run from a manifest file or a preset's name.

    `overrides` are `path=value` pairs: a path in the manifest (`metadata.name`), in its spec
    (`checkpoint.url`), or in the training section (`mae.maskRatio`); the value is YAML. A null,
    there and in the file, means the default.

    Raises ConfigError with one line for every mistake.
    """
    document = preset_manifest(source) if source in PRESETS else read_manifest(Path(source))
    for override in overrides:
        document = apply_override(document, override)
    return validate(document, f"{source} with --set" if overrides else source)


def preset_manifest(preset: str) -> dict[str, Any]:
    """Returns the manifest of a run with all defaults of a preset."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": preset},
        "spec": {"training": {"preset": preset}},
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads the one YAML document of a manifest file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            documents = read_documents(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        names = ", ".join(PRESETS)
        raise ConfigError(
            f"{path}: no such file, and no preset of that name (presets: {names})"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except YamlProblem as problem:
        line = f":{problem.line}" if problem.line else ""
        raise ConfigError(f"{path}{line}: {problem}") from None
    if len(documents) != 1:
        raise ConfigError(
            f"{path}: must hold one {KIND} object, but holds {len(documents)} YAML documents"
        )
    if not isinstance(documents[0], dict):
        raise ConfigError(
            f"{path}: must hold one {KIND} object (apiVersion, kind, metadata, spec), but holds "
            f"a {type(documents[0]).__name__}"
        )
    return documents[0]


def apply_override(document: dict[str, Any], override: str) -> dict[str, Any]:
    """Returns the manifest with one `path=value` override applied. Raises ConfigError."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: write it as path=value, e.g. mae.maskRatio=0.75")
    # In camelCase, so that a name in snake_case is told where the field is that it means.
    first = to_camel(keys[0])
    if first in _names(RunSpec):
        keys = ["spec", *keys]
    elif first not in _names(ArlowPretrain):
        keys = ["spec", "training", *keys]
    try:
        documents = read_documents(text)
    except YamlProblem as problem:
        raise ConfigError(f"--set {override}: {problem}") from None
    if not text.strip():
        raise ConfigError(f"--set {override}: the value is empty; {path}=null is the default")
    if len(documents) > 1:
        raise ConfigError(
            f"--set {override}: the value must be one YAML value, "
            f"not {len(documents)} YAML documents"
        )
    return _with_value(document, keys, documents[0] if documents else None)


def _names(model: type[BaseModel]) -> set[str]:
    return {to_camel(name) for name in model.model_fields}


def _with_value(node: object, keys: Sequence[str], value: object) -> dict[str, Any]:
    branch = dict(node) if isinstance(node, dict) else {}
    branch[keys[0]] = value if len(keys) == 1 else _with_value(branch.get(keys[0]), keys[1:], value)
    return branch


def validate(document: dict[str, Any], source: str) -> ArlowPretrain:
    """Applies the preset's defaults to a manifest and validates it.

    Args:
        document: the manifest.
        source: its file name or the like, for messages.

    Raises:
        ConfigError: one line for every mistake.
    """
    document = without_nulls(document)
    spec = document.get("spec", {})
    if isinstance(spec, dict):
        training = spec.get("training", {})
        if isinstance(training, dict):
            document["spec"] = {**spec, "training": apply_preset(training)}
    try:
        run = parse(document)
        valid = not any(null_characters(document))
    except ValidationError:
        valid = False
    if not valid:
        raise ConfigError("\n".join(describe_mistakes(document, source)))
    return run


def without_nulls(node: Any) -> Any:
    """Returns a document without the fields that are null, at any depth.

    `kubectl apply` drops them before it sends, so a null can only mean an absent field. A null that
    is itself an item of a list is kept, as kubectl keeps it.
    """
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return [without_nulls(item) for item in node] if isinstance(node, list) else node


def to_yaml(run: ArlowPretrain) -> str:
    """Returns a run's manifest as YAML, with every field that has a value.

    Without what is known for a secret: credentials in URLs, and variables with a name of one.
    """
    document = run.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"status"})
    return write_document(redact_tree(document))
