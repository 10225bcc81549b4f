"""The float32 weights out of the optimiser's state of any number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from arlow_trainer.checkpoint.masters import master_weights, weights_dtype
from arlow_trainer.config.errors import StoreError
from arlow_trainer.engine import MASTER, Fragment, OptimizerShard

WEIGHTS = {"a.weight": torch.randn(3, 5), "b.bias": torch.randn(7)}


def shards(folder: Path, cut: int) -> list[Path]:
    """Two ranks' files, the first `cut` numbers in the first, after two of a decoder."""
    flat = torch.cat([value.flatten() for value in WEIGHTS.values()])
    paths = []
    for rank, (first, last) in enumerate(((0, cut), (cut, len(flat)))):
        fragments, begin = [Fragment("decoder.x", 0, 0, 2, 0)], 0
        for name, value in WEIGHTS.items():
            start, end = max(begin, first), min(begin + value.numel(), last)
            if start < end:
                part = Fragment(f"tower.{name}", 0, start - begin, end - start, start - first + 2)
                fragments.append(part)
            begin += value.numel()
        tensors = {f"0.{MASTER}": torch.cat([torch.zeros(2), flat[first:last]])}
        paths.append(folder / f"{rank}.safetensors")
        OptimizerShard(tensors, fragments, 1).save(paths[-1])
    return paths


@pytest.mark.parametrize("cut", [4, 15, 18])
def test_they_are_put_together(tmp_path: Path, cut: int) -> None:
    half = {name: value.half() for name, value in WEIGHTS.items()}
    save_file(half, tmp_path / "tower.safetensors")
    assert weights_dtype(tmp_path / "tower.safetensors") == torch.float16
    found = master_weights(tmp_path / "tower.safetensors", shards(tmp_path, cut))
    assert found.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert torch.equal(found[name], value)


def test_a_rank_that_is_missing_is_told(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "tower.safetensors")
    with pytest.raises(StoreError, match=r"lacks 18 numbers of the tower; give --dtype"):
        master_weights(tmp_path / "tower.safetensors", shards(tmp_path, 4)[:1])
    (tmp_path / "0.safetensors").write_bytes(b"torn")
    with pytest.raises(StoreError, match=r"0\.safetensors is damaged: .*give --dtype"):
        master_weights(tmp_path / "tower.safetensors", [tmp_path / "0.safetensors"])
