"""The code in a checkpoint, which `trust_remote_code=True` runs wherever it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from arlow_trainer.checkpoint.export import exported_names, fixed_files
from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.config import ModelSection
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel
from arlow_trainer.storage.json_text import parse_json
from arlow_trainer.storage.store import Store

_AUTO_MAP = "auto_map"
"""The key by which a configuration names the code that is imported for it."""


def foreign_code(store: Store, step: int) -> list[str]:
    """Returns the exported files of a checkpoint whose code is not what this version writes.

    Those are files of Python, and configurations that name other classes to import. Raises
    StoreError.
    """
    folder = checkpoint_name(step)
    names = [name for name in exported_names(store, step) if name.endswith((".py", ".json"))]
    return [
        name
        for name in names
        if _code(name, store.read_bytes(f"{folder}/{name}")) != _own_code().get(name)
    ]


@cache
def _own_code() -> Mapping[str, Any]:
    # The code is the same for every size of the tower.
    sizes: dict[str, Any] = {"depth": 1, "embed_dim": 48, "num_heads": 2, "hidden_size": 32}
    files = fixed_files(ArlowVLVisionModel(ArlowVisionConfig(**sizes)), ModelSection(**sizes))
    code = {name: _code(name, content) for name, content in files.items()}
    return {name: each for name, each in code.items() if each is not None}


def _code(name: str, content: bytes) -> Any:
    """Returns what a file would have run: its bytes, or the classes that it names; None if none."""
    if name.endswith(".py"):
        return content
    try:
        parsed = parse_json(content)
    except ValueError:
        return None
    return parsed.get(_AUTO_MAP) if isinstance(parsed, dict) else None
