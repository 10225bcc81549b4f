"""The float32 weights of a run in half precision, out of its optimiser's state."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from arlow_trainer.config.errors import StoreError
from arlow_trainer.engine import MASTER, Fragment
from arlow_trainer.engine.shard_files import ShardFile, Span

_PREFIX = "tower."


def weights_dtype(weights: Path) -> torch.dtype:
    """Returns the type of the first tensor of a file of weights."""
    with safe_open(weights, "pt") as file:
        name = next(iter(file.keys()))
        dtype: torch.dtype = file.get_tensor(name).dtype
        return dtype


def master_weights(weights: Path, shards: list[Path]) -> dict[str, Tensor]:
    """Returns the tower's weights in float32, by name.

    Args:
        weights: the tower's file, whose names and shapes hold.
        shards: the optimiser's files of all ranks.

    Raises:
        StoreError: the shards are damaged, or do not cover the tower.
    """
    with safe_open(weights, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    masters = {name: torch.zeros(shape, dtype=torch.float32) for name, shape in shapes.items()}
    missing = sum(each.numel() for each in masters.values())
    for path in shards:
        try:
            shard = ShardFile(path)
            spans = []
            for record in json.loads(shard.metadata["fragments"]):
                part = Fragment(**record)
                name = part.name.removeprefix(_PREFIX)
                if not part.name.startswith(_PREFIX) or name not in masters:
                    continue
                into = masters[name].view(-1)[part.start : part.start + part.count]
                spans.append(Span(f"{part.group}.{MASTER}", part.offset, into))
                missing -= len(into)
            shard.read(spans)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise StoreError(
                f"the optimiser's state in {path.name} is damaged: {error}; give --dtype of the "
                "run's own precision, which is exported from the tower's file alone"
            ) from error
    if missing:
        raise StoreError(
            f"the optimiser's state lacks {missing:,} numbers of the tower; give --dtype of the "
            "run's own precision, which is exported from the tower's file alone"
        )
    return masters
