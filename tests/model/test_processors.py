"""Both processors as one, and what they save and load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_reader import read_without_project
from processor_inputs import SMALL_FRAMES, both, image, video
from transformers import AutoImageProcessor, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from arlow_trainer.model import (
    ArlowImageProcessor,
    ArlowProcessor,
    ArlowVideoProcessor,
    ArlowVisionConfig,
    ArlowVLVisionModel,
)


def test_the_processor_returns_what_its_two_parts_return() -> None:
    processor = both()
    frames, pixels = video(4), image(100, 150)
    out = processor(
        images=[pixels],
        videos=frames,
        return_tensors="pt",
        videos_kwargs={"sample_strategy": "uniform"},
    )
    images = processor.image_processor([pixels], return_tensors="pt")
    videos = processor.video_processor(frames, sample_strategy="uniform", return_tensors="pt")
    expected = {**images, **videos}
    assert out.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(torch.as_tensor(out[key]), torch.as_tensor(value)), key
    with pytest.raises(ValueError, match="at least one input"):
        processor()
    with pytest.raises(TypeError):
        ArlowProcessor(ArlowImageProcessor(), ArlowImageProcessor())


def test_what_the_processors_say_the_tower_takes() -> None:
    tower = ArlowVLVisionModel(
        ArlowVisionConfig(depth=1, embed_dim=48, hidden_size=64, num_heads=2)
    )
    out = ArlowProcessor(ArlowImageProcessor(), ArlowVideoProcessor(size=SMALL_FRAMES))(
        images=[image(60, 90), image(90, 60)], videos=video(8), return_tensors="pt"
    )
    assert tower(out["pixel_values"], out["image_grid_thw"]).shape == (2 * 2 * 3, 64)
    assert tower(out["pixel_values_videos"], out["video_grid_thw"]).shape == (4 * 2 * 3, 64)


@pytest.mark.parametrize(
    ("processor", "auto", "file"),
    [
        (both().image_processor, AutoImageProcessor, "preprocessor_config.json"),
        (both().video_processor, AutoVideoProcessor, "video_preprocessor_config.json"),
        (both(), AutoProcessor, "processor_config.json"),
    ],
)
def test_saved_and_loaded_the_same(processor: Any, auto: Any, file: str, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    assert (tmp_path / file).is_file()
    expected = processor.to_dict()
    for loader in (type(processor), auto):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is type(processor)
        actual = loaded.to_dict()
        assert without_auto_map(actual) == without_auto_map(expected)


def without_auto_map(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the addresses of the classes' code, which only saving adds."""
    return {
        key: without_auto_map(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key != "auto_map"
    }


def test_settings_of_the_public_files_are_understood(tmp_path: Path) -> None:
    published = {
        "image_processor_type": "ArlowImageProcessor",
        "min_pixels": 6272,
        "max_pixels": 50176,
        "pan_and_scan_max_num_crops": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    loaded = ArlowImageProcessor.from_pretrained(tmp_path)
    assert loaded.size == {"shortest_edge": 6272, "longest_edge": 50176}
    assert loaded.pan_and_scan_max_num_crops == 2


@pytest.mark.parametrize("kind", [ArlowImageProcessor, ArlowVideoProcessor])
def test_bounds_have_two_names_that_agree(kind: Any, tmp_path: Path) -> None:
    default, bounds = kind(), {"shortest_edge": 6272, "longest_edge": 50176}
    assert default.min_pixels == default.size["shortest_edge"]
    assert default.max_pixels == default.size["longest_edge"]
    for processor in (kind(size=bounds), kind(min_pixels=6272, max_pixels=50176)):
        assert (dict_of(processor.size), processor.min_pixels) == (bounds, 6272)
        processor.save_pretrained(tmp_path)
        (file,) = tmp_path.glob("*config.json")
        saved = json.loads(file.read_text())
        assert saved["size"] == bounds
        assert (saved["min_pixels"], saved["max_pixels"]) == (6272, 50176)
        assert kind.from_pretrained(tmp_path).to_dict() == processor.to_dict() | auto_map(saved)
    set_later = kind(size=bounds)
    set_later.max_pixels = 200_704
    set_later.min_pixels = 3136
    assert dict_of(set_later.size) == {"shortest_edge": 3136, "longest_edge": 200_704}
    assert kind(size=bounds, max_pixels=100_352).size["longest_edge"] == 100_352
    wider = kind.from_pretrained(tmp_path, size={"longest_edge": 301_056})
    assert wider.max_pixels == wider.size["longest_edge"] == 301_056
    assert kind.from_pretrained(tmp_path, max_pixels=100_352).size["longest_edge"] == 100_352
    assert default.size == kind().size


def dict_of(size: Any) -> dict[str, int]:
    return {key: value for key, value in dict(size).items() if value is not None}


def auto_map(saved: dict[str, Any]) -> dict[str, Any]:
    return {"auto_map": saved["auto_map"]}


def test_exported_processors_load_without_this_project(tmp_path: Path) -> None:
    processor, frames, pixels = both(), video(4), image(100, 150)
    # The parts first: saving the whole writes its own address into them.
    processor.image_processor.save_pretrained(tmp_path / "image_processor")
    processor.video_processor.save_pretrained(tmp_path / "video_processor")
    processor.save_pretrained(tmp_path)
    expected = [
        processor.image_processor(pixels)["pixel_values"],
        processor.video_processor(frames, sample_strategy="uniform")["pixel_values_videos"],
    ]
    np.savez(tmp_path / "inputs.npz", frames=frames, pixels=pixels)
    read_without_project(
        tmp_path,
        """
        import numpy as np
        from transformers import AutoImageProcessor, AutoProcessor
        from transformers.models.auto.video_processing_auto import AutoVideoProcessor
        trusted = {"trust_remote_code": True}
        image = AutoImageProcessor.from_pretrained("image_processor", **trusted)
        video = AutoVideoProcessor.from_pretrained("video_processor", **trusted)
        both = AutoProcessor.from_pretrained(".", **trusted)
        inputs = np.load("inputs.npz")
        uniform = {"sample_strategy": "uniform"}
        images = image(inputs["pixels"])
        videos = video(inputs["frames"], **uniform)
        out = both(images=inputs["pixels"], videos=inputs["frames"], videos_kwargs=uniform)
        np.savez(
            "outputs.npz",
            images=images["pixel_values"],
            videos=videos["pixel_values_videos"],
            both_pictures=out["pixel_values"],
            both_films=out["pixel_values_videos"],
        )
        """,
    )
    actual = np.load(tmp_path / "outputs.npz")
    assert np.array_equal(actual["images"], expected[0])
    assert np.array_equal(actual["videos"], expected[1])
    assert np.array_equal(actual["both_pictures"], expected[0])
    assert np.array_equal(actual["both_films"], expected[1])
