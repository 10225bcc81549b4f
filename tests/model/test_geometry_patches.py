"""Frames to patches and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from arlow_trainer.model import patchify, unpatchify
from arlow_trainer.model.geometry import repeat_last_frame


def test_feature_order_is_channel_frame_row_column() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 9, 3), dtype=np.uint8)
    patches = patchify(torch.from_numpy(frames), 3, 2)
    assert patches.shape == (2, 2 * 2 * 3, 3 * 2 * 9)
    assert patches.dtype is torch.uint8
    token = 0
    for t in range(2):
        for h in range(2):
            for w in range(3):
                block = frames[:, 2 * t : 2 * t + 2, 3 * h : 3 * h + 3, 3 * w : 3 * w + 3]
                expected = block.transpose(0, 4, 1, 2, 3).reshape(2, -1)
                assert np.array_equal(patches[:, token].numpy(), expected)
                token += 1


@pytest.mark.parametrize("channels", [1, 3])
def test_unpatchify_is_the_inverse(channels: int) -> None:
    frames = torch.randn(2, 6, 28, 56, channels)
    patches = patchify(frames, 14, 2)
    assert torch.equal(unpatchify(patches, (3, 2, 4), 14, 2), frames)


def test_patches_of_a_linear_map_equal_a_convolution() -> None:
    frames = torch.randn(2, 4, 28, 42, 3, dtype=torch.float64)
    conv = torch.nn.Conv3d(3, 5, (2, 14, 14), (2, 14, 14), bias=False).double()
    expected = conv(frames.movedim(-1, 1)).flatten(2).transpose(1, 2)
    actual = patchify(frames, 14, 2) @ conv.weight.flatten(1).T
    torch.testing.assert_close(actual, expected)


def test_last_frame_is_repeated_up_to_a_multiple() -> None:
    frames = torch.arange(3).view(1, 3, 1, 1, 1)
    assert repeat_last_frame(frames, 2).flatten().tolist() == [0, 1, 2, 2]
    assert repeat_last_frame(frames, 5).flatten().tolist() == [0, 1, 2, 2, 2]
    assert repeat_last_frame(frames, 3) is frames


@pytest.mark.parametrize("shape", [(1, 3, 28, 28, 3), (1, 2, 27, 28, 3), (1, 2, 28, 30, 3)])
def test_what_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give multiples of these"):
        patchify(torch.zeros(shape), 14, 2)


@pytest.mark.parametrize("shape", [(1, 5, 1176), (1, 4, 1175)])
def test_patches_must_fit_their_grid(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit the grid 1 x 2 x 2"):
        unpatchify(torch.zeros(shape), (1, 2, 2), 14, 2)
