"""The tower's configuration: defaults, derived fields, mistakes, and what a file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from arlow_trainer.model import ArlowVisionConfig


def test_defaults_are_the_full_size_tower() -> None:
    config = ArlowVisionConfig()
    assert (config.depth, config.embed_dim, config.num_heads) == (48, 1536, 24)
    assert (config.head_dim, config.hidden_size, config.mlp_ratio) == (64, 3072, 4)
    assert (config.patch_size, config.temporal_patch_size, config.spatial_merge_size) == (14, 2, 2)
    assert config.patch_features == 1176
    assert config.hidden_act == "gelu_pytorch_tanh"
    assert config.use_deformable_attention
    assert config.use_progressive_patches
    assert (config.deformable_attention_window, config.deformable_attention_strength) == (0.25, 4.0)
    assert config.deepstack_visual_indexes == [12, 24, 44]
    assert config.mrope_sections == [21, 21, 22]
    assert (config.token_pruning_ratio, config.initializer_range) == (0.0, 0.02)
    assert config.max_position_embeddings == 32768


@pytest.mark.parametrize(
    ("depth", "indexes"), [(1, []), (5, []), (6, [1, 2, 3]), (8, [2, 4]), (12, [3, 6, 8])]
)
def test_unset_deepstack_follows_the_depth(depth: int, indexes: list[int]) -> None:
    assert ArlowVisionConfig(depth=depth).deepstack_visual_indexes == indexes


@pytest.mark.parametrize(
    ("head_dim", "sections"), [(4, [1, 1, 2]), (6, [2, 2, 2]), (24, [8, 8, 8]), (64, [21, 21, 22])]
)
def test_unset_sections_follow_the_head(head_dim: int, sections: list[int]) -> None:
    config = ArlowVisionConfig(embed_dim=2 * head_dim, num_heads=2)
    assert config.mrope_sections == sections


def test_given_lists_are_kept() -> None:
    config = ArlowVisionConfig(deepstack_visual_indexes=[], mrope_sections=[0, 32, 32])
    assert config.deepstack_visual_indexes == []
    assert config.mrope_sections == [0, 32, 32]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("depth", 0, "depth is 0"),
        ("patch_size", 14.0, "patch_size is 14.0"),
        ("hidden_size", True, "hidden_size is True"),
        ("num_heads", 7, "embed_dim 1536 over num_heads 7"),
        ("num_heads", 1536, "embed_dim 1536 over num_heads 1536"),
        ("num_heads", 768, "M-RoPE needs at least 4"),
        ("mlp_ratio", 0, "mlp_ratio is 0"),
        ("hidden_act", "glue", "hidden_act is 'glue'"),
        ("deformable_attention_window", -0.1, "must not be negative"),
        ("token_pruning_ratio", 0.5, "keeps every token"),
        ("deepstack_visual_indexes", [48], "between 0 and 47"),
        ("deepstack_visual_indexes", [3, 1], "ascending"),
        ("mrope_sections", [21, 21, 21], "add up to the head dimension 64"),
        ("mrope_sections", [32, 32], "three numbers"),
    ],
)
def test_mistakes_are_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArlowVisionConfig(**{field: value})


def test_a_file_names_every_field_and_comes_back_equal(tmp_path: Path) -> None:
    config = ArlowVisionConfig(depth=6, embed_dim=48, num_heads=2, use_progressive_patches=False)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    # Another implementation's defaults differ: nothing may be left for it to guess.
    assert saved.keys() >= set(ArlowVisionConfig.__annotations__)
    assert saved["model_type"] == "arlow"
    for loader in (ArlowVisionConfig, AutoConfig):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, ArlowVisionConfig)
        assert loaded.to_diff_dict() == config.to_diff_dict()


def test_the_public_names_of_a_published_file_are_understood() -> None:
    config = ArlowVisionConfig(depth=2, embed_dim=48, num_heads=2, num_attention_heads=2)
    assert (config.num_heads, config.num_attention_heads) == (2, 2)
