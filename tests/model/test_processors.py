"""The processors against plain numpy, and what they save and load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_reader import read_without_project
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from arlow_trainer.model import (
    ArlowImageProcessor,
    ArlowProcessor,
    ArlowVideoProcessor,
    ArlowVisionConfig,
    ArlowVLVisionModel,
)
from arlow_trainer.model.sampling import (
    motion_indices,
    patch_frames,
    spread_indices,
    uniform_indices,
)

SMALL_FRAMES = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
Pixels = NDArray[np.uint8]


def image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def video(frames: int, height: int = 56, width: int = 84) -> Pixels:
    images = [image(height, width, seed) for seed in range(frames)]
    return np.array(images, dtype=np.uint8).reshape(frames, height, width, 3)


def plain_patches(frames: list[Pixels], height: int, width: int) -> NDArray[np.float32]:
    """Resize, scale, normalise and cut two frames a patch, one patch after another."""
    resized = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        for frame in frames
    ]
    values = (np.stack(resized).astype(np.float64) / 255 - 0.5) / 0.5
    patches = [
        values[t : t + 2, y : y + 14, x : x + 14].transpose(3, 0, 1, 2).ravel()
        for t in range(0, len(frames), 2)
        for y in range(0, height, 14)
        for x in range(0, width, 14)
    ]
    return np.stack(patches).astype(np.float32)


def test_images_become_patches() -> None:
    wide, tall = image(100, 150), image(60, 40, seed=1)
    out = ArlowImageProcessor()([wide, tall], return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 8, 10], [1, 6, 4]]
    assert out["image_grid_thw"].dtype is torch.int64
    assert out["pixel_values"].dtype is torch.float32
    expected = np.concatenate(
        [plain_patches([wide] * 2, 112, 140), plain_patches([tall] * 2, 84, 56)]
    )
    np.testing.assert_allclose(out["pixel_values"].numpy(), expected, atol=1e-6)


def test_every_kind_of_image_reads_the_same() -> None:
    pixels = image(56, 84)
    processor = ArlowImageProcessor()
    expected = processor(pixels)["pixel_values"]
    opaque = Image.fromarray(pixels).convert("RGBA")
    for kind in (Image.fromarray(pixels), opaque, torch.from_numpy(pixels).permute(2, 0, 1)):
        assert np.array_equal(processor(kind)["pixel_values"], expected)
    grey = Image.fromarray(pixels).convert("L")
    three = Image.merge("RGB", [grey] * 3)
    assert np.array_equal(processor(grey)["pixel_values"], processor(three)["pixel_values"])


def test_settings_of_a_call() -> None:
    processor = ArlowImageProcessor()
    pixels = image(56, 84)
    raw = processor(pixels, do_rescale=False, do_normalize=False, do_resize=False)["pixel_values"]
    expected = (plain_patches([pixels] * 2, 56, 84) * 0.5 + 0.5) * 255
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    for bounds in ({"size": {"longest_edge": 56 * 56}}, {"max_pixels": 56 * 56}):
        assert processor(image(300, 300), **bounds)["image_grid_thw"].tolist() == [[1, 4, 4]]
        assert ArlowImageProcessor(**bounds).size["longest_edge"] == 56 * 56
    older = ArlowImageProcessor(max_pixels=56 * 56)
    larger = older(image(300, 300), size={"longest_edge": 224 * 224})
    assert larger["image_grid_thw"].tolist() == [[1, 16, 16]]
    assert processor.size == {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    assert processor.get_number_of_image_patches(100, 150) == 80
    assert processor.get_number_of_image_patches(300, 300, {"max_pixels": 56 * 56}) == 16


def test_pan_and_scan_adds_crops_after_their_picture() -> None:
    long, short = image(280, 840), image(280, 280, seed=1)
    processor = ArlowImageProcessor(do_pan_and_scan=True)
    out = processor([long, short])
    assert out["num_crops"] == [3, 0]
    views = [long, long[:, :280], long[:, 280:560], long[:, 560:], short]
    assert out["image_grid_thw"].tolist() == [[1, 20, 60]] + [[1, 20, 20]] * 4
    expected = ArlowImageProcessor()(views)["pixel_values"]
    assert np.array_equal(out["pixel_values"], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 448}, "takes the keys shortest_edge and longest_edge"),
        ({"size": {"height": 224, "width": 224}}, "size has the keys height"),
        ({"max_pixels": 100}, "shortest_edge must be above 0 and at most longest_edge"),
        ({"do_resize": False}, "60 x 90 pixels cannot be cut into merge units of 28 x 28"),
    ],
)
def test_mistakes_about_images_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArlowImageProcessor()(image(60, 90), **options)


@pytest.mark.parametrize("images", [[], [[]]])
def test_no_images_are_refused(images: list[Any]) -> None:
    for processor in (ArlowImageProcessor(), both()):
        with pytest.raises(ValueError, match="images is empty: give at least one"):
            processor(images=images)


def test_an_image_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x 402 pixels is too long"):
        ArlowImageProcessor()(image(2, 402))


def test_videos_become_patches() -> None:
    even, odd = video(4), video(5)
    out = ArlowVideoProcessor(size=SMALL_FRAMES)([even, odd], return_tensors="pt")
    assert out["video_grid_thw"].tolist() == [[2, 4, 6], [2, 4, 6]]
    expected = np.concatenate(
        [plain_patches(list(even), 56, 84), plain_patches(list(odd[[0, 1, 3, 4]]), 56, 84)]
    )
    np.testing.assert_allclose(out["pixel_values_videos"].numpy(), expected, atol=1e-6)


def test_every_kind_of_video_reads_the_same() -> None:
    frames = video(4)
    processor = ArlowVideoProcessor(size=SMALL_FRAMES)
    expected = processor(frames)["pixel_values_videos"]
    first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for kind in ([Image.fromarray(frame) for frame in frames], torch.from_numpy(frames), first):
        assert np.array_equal(processor(kind)["pixel_values_videos"], expected)


def test_video_sizes_follow_the_area_of_a_frame() -> None:
    out = ArlowVideoProcessor()(video(4, 240, 320))
    assert out["video_grid_thw"].tolist() == [[2, 24, 30]]


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({}, list(range(12))),
        ({"num_frames": 4}, [0, 3, 6, 9]),
        ({"num_frames": 2}, [0, 0, 6, 6]),
        ({"num_frames": 6}, [0, 2, 2, 4, 6, 8, 8, 10]),
        ({"num_frames": 40}, list(range(12))),
        ({"max_frames": 6}, [0, 2, 4, 7, 9, 11]),
        ({"sample_strategy": "fps_based", "fps": 5}, [0, 2, 2, 4, 6, 8, 8, 10]),
        ({"sample_strategy": "fps_based", "fps": 0.1}, [0, 3, 6, 9]),
        ({"sample_strategy": "fps_based", "fps": 0.1, "min_frames": 8}, [0, 1, 3, 4, 6, 7, 9, 10]),
        ({"do_sample_frames": False, "num_frames": 4}, list(range(12))),
    ],
)
def test_frames_chosen(options: dict[str, Any], indices: list[int]) -> None:
    frames = video(12)
    processor = ArlowVideoProcessor(size=SMALL_FRAMES)
    about = {"total_num_frames": 12, "fps": 10.0, "frames_indices": list(range(12))}
    out = processor(frames, video_metadata=about, return_metadata=True, **options)
    assert list(out["video_metadata"][0].frames_indices) == indices
    kept = {"do_sample_frames": False, "max_frames": len(indices)}
    expected = processor(frames[indices], **kept)
    assert np.array_equal(out["pixel_values_videos"], expected["pixel_values_videos"])


# What the public processor makes of videos of so many frames, by its own code.
PUBLIC_CHOICE = {
    2: [0, 0, 1, 1],
    3: [0, 1, 1, 2],
    4: [0, 1, 2, 3],
    5: [0, 1, 3, 4],
    6: [0, 1, 1, 2, 3, 4, 4, 5],
    7: [0, 1, 2, 3, 3, 4, 5, 6],
    8: list(range(8)),
    9: [0, 1, 2, 3, 5, 6, 7, 8],
}


@pytest.mark.parametrize("total", PUBLIC_CHOICE)
def test_patches_in_time_are_even_as_the_public_processors(total: int) -> None:
    frames, chosen = video(total), PUBLIC_CHOICE[total]
    out = ArlowVideoProcessor(size=SMALL_FRAMES)(frames)
    assert out["video_grid_thw"].tolist() == [[len(chosen) // 2, 4, 6]]
    expected = plain_patches(list(frames[chosen]), 56, 84)
    np.testing.assert_allclose(out["pixel_values_videos"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("total", "most", "drop", "count"),
    [
        (1, 768, True, 4),
        (5, 768, True, 4),
        (5, 768, False, 8),
        (6, 6, True, 6),
        (1000, 768, True, 768),
        (1000, 7, True, 6),
        (8, 1, True, 2),
    ],
)
def test_frames_of_patches(total: int, most: int, drop: bool, count: int) -> None:
    assert patch_frames(total, 2, most, drop) == count
    indices = spread_indices(total, count)
    assert len(indices) == count
    assert (indices[0], indices[-1]) == (0, total - 1)
    even = np.linspace(0, total - 1, count)
    assert np.abs(indices - even).max() <= 0.5


def test_an_odd_video_that_is_not_resized_is_rounded_up() -> None:
    out = ArlowVideoProcessor(do_resize=False)(video(5))
    assert out["video_grid_thw"].tolist() == [[4, 4, 6]]


@pytest.mark.parametrize(("total", "count"), [(1, 1), (10, 3), (10, 10), (3, 10), (1000, 7)])
def test_uniform_indices_are_distinct_and_even(total: int, count: int) -> None:
    indices = uniform_indices(total, count)
    assert len(indices) == min(total, count)
    assert indices[0] == 0
    gaps = np.diff([*indices, total])
    assert gaps.max() - gaps.min() <= 1


def test_motion_is_sampled_more_densely() -> None:
    frames = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    frames[20:30:2] = 200
    indices = motion_indices(frames, 12, 0.1)
    assert len(set(indices.tolist())) == 12
    assert list(indices) == sorted(indices)
    assert ((indices >= 20) & (indices < 30)).sum() >= 8
    assert np.array_equal(indices, motion_indices(frames, 12, 0.1))


def test_one_cut_does_not_swallow_the_sample() -> None:
    frames = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    frames[20:] = 255
    indices = motion_indices(frames, 12, 0.1)
    assert len(set(indices.tolist())) == 12
    assert 20 in indices


def test_still_videos_and_small_motion_are_sampled_evenly() -> None:
    still = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    gaps = np.diff(motion_indices(still, 10, 0.1))
    assert gaps.min() >= 3
    assert gaps.max() <= 5
    assert motion_indices(still, 50, 0.1).tolist() == list(range(40))


def test_motion_adaptive_strategy_looks_at_the_film() -> None:
    frames = video(20)
    frames[:15] = frames[0]
    processor = ArlowVideoProcessor(
        size=SMALL_FRAMES, sample_strategy="motion_adaptive", num_frames=6
    )
    chosen = processor(frames, return_metadata=True)["video_metadata"][0].frames_indices
    expected = motion_indices(frames, 6, 0.1)
    assert chosen == expected[spread_indices(6, 8)].tolist()
    assert set(range(15, 20)) <= set(chosen)


@pytest.mark.parametrize(
    ("videos", "options", "words"),
    [
        ("video.mp4", {}, "videos must be decoded frames"),
        (["video.mp4"], {}, "videos must be decoded frames"),
        (video(4), {"sample_strategy": "random"}, "fps_based, motion_adaptive, uniform"),
        (video(4), {"fps": 2.0}, "fps is given, but sample_strategy is 'uniform'"),
        (
            video(4),
            {"num_frames": 2, "sample_strategy": "fps_based"},
            "num_frames with sample_strategy motion_adaptive or uniform",
        ),
        ([], {}, "videos is empty"),
        ([[]], {}, "videos is empty"),
        ([video(4), video(0)], {}, "videos is empty"),
        (video(4), {"sample_strategy": "fps_based"}, "fps is not set"),
        (video(4), {"sample_strategy": "fps_based", "fps": 2}, "video_metadata fps, is not set"),
    ],
)
def test_mistakes_about_videos_are_named(videos: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArlowVideoProcessor()(videos, **options)


def both() -> ArlowProcessor:
    return ArlowProcessor(
        ArlowImageProcessor(max_pixels=224 * 224, do_pan_and_scan=True),
        ArlowVideoProcessor(size=SMALL_FRAMES, sample_strategy="fps_based", fps=2),
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
