"""The files of an export that no step changes: processors that fit the tower, and the card."""

from __future__ import annotations

import json

import pytest

from arlow_trainer.checkpoint.export import fixed_files
from arlow_trainer.config import ModelSection
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel


def sizes(patch_size: int) -> dict[str, dict[str, int]]:
    """The areas, in pixels, that the exported processors keep to, by modality."""
    model = ModelSection(depth=1, embed_dim=48, num_heads=2, hidden_size=32, patch_size=patch_size)
    config = ArlowVisionConfig(
        depth=1, embed_dim=48, num_heads=2, hidden_size=32, patch_size=patch_size
    )
    files = fixed_files(ArlowVLVisionModel(config), model)
    folders = {"image": "image_processor/preprocessor_config.json"}
    folders["video"] = "video_processor/video_preprocessor_config.json"
    found = {}
    for modality, name in folders.items():
        saved = json.loads(files[name])
        assert saved["patch_size"] == patch_size
        found[modality] = saved["size"]
    return found


def test_patches_of_14_have_the_reference_sizes() -> None:
    assert sizes(14) == {
        "image": {"shortest_edge": 3136, "longest_edge": 1_003_520},
        "video": {"shortest_edge": 131_072, "longest_edge": 786_432},
    }


@pytest.mark.parametrize("patch_size", [3, 7, 28])
def test_other_patches_give_as_many_tokens(patch_size: int) -> None:
    for modality, size in sizes(patch_size).items():
        for name, area in size.items():
            tokens = area / (2 * patch_size) ** 2
            assert tokens == pytest.approx(sizes(14)[modality][name] / 28**2, rel=0.01)
