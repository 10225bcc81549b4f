"""Videos become patches, against plain numpy: their frames, sizes and patches in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processor_inputs import SMALL_FRAMES, plain_patches, video

from arlow_trainer.model import (
    ArlowVideoProcessor,
)
from arlow_trainer.model.rgb import to_rgb
from arlow_trainer.model.sampling import (
    motion_indices,
    patch_frames,
    spread_indices,
    uniform_indices,
)


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
        ([[]], {}, "videos is empty"),
        ([video(4), video(0)], {}, "videos is empty"),
        (video(4), {"sample_strategy": "fps_based"}, "fps is not set"),
        (video(4), {"sample_strategy": "fps_based", "fps": 2}, "video_metadata fps, is not set"),
    ],
)
def test_mistakes_about_videos_are_named(videos: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArlowVideoProcessor()(videos, **options)


def test_no_videos_make_empty_tensors() -> None:
    out = ArlowVideoProcessor()([], return_tensors="pt")
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {"pixel_values_videos": (0, 1176), "video_grid_thw": (0, 3)}


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_frames_of_any_mode_are_taken(mode: str) -> None:
    frames = [Image.fromarray(frame).convert(mode) for frame in video(4)]
    processor = ArlowVideoProcessor(size=SMALL_FRAMES)
    expected = processor([to_rgb(frame) for frame in frames], return_tensors="pt")
    for given in (frames, [frames]):
        seen = processor(given, return_tensors="pt")
        assert torch.equal(seen["pixel_values_videos"], expected["pixel_values_videos"])
