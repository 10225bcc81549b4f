"""The tower against the public implementation's numbers, in every form of input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch._dynamo.utils import counters

from arlow_trainer.engine.compilation import Blocks
from arlow_trainer.mae import MaskedAutoencoder, PixelDecoder
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel, unpatchify

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 2e-5


class Golden:
    """A tower with published weights, an input, and what comes out of it."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            config = json.loads(file.metadata()["config"])
        # The public implementation's defaults, which the files leave out.
        config = {"use_deformable_attention": False, "use_progressive_patches": False} | config
        self.tower = ArlowVLVisionModel(ArlowVisionConfig(**config)).eval()
        weights = {k.removeprefix("weight."): v for k, v in tensors.items() if "weight." in k[:7]}
        self.tower.load_state_dict(weights, strict=True)
        self.pixels = tensors["pixel_values"]
        self.grid = tensors["grid_thw"]
        deepstack = sorted(key for key in tensors if key.startswith("deepstack."))
        self.outputs = [tensors["visual_tokens"], *(tensors[key] for key in deepstack)]

    def items(self) -> list[Tensor]:
        return list(self.pixels.split(self.grid.prod(1).tolist()))


def run(tower: ArlowVLVisionModel, pixels: Tensor, grid: Tensor | None) -> list[Tensor]:
    with torch.no_grad():
        out = tower(pixels, grid)
    return [out[0], *out[1]] if isinstance(out, tuple) else [out]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max().item() <= tolerance


@pytest.fixture(params=["plain", "full"], scope="module")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_packed_input(golden: Golden) -> None:
    assert_close(run(golden.tower, golden.pixels, golden.grid), golden.outputs, TOLERANCE)


def test_compiled_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first item alone: a shape takes inductor ten seconds."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    golden = Golden("full")
    decoder = PixelDecoder(golden.tower.config, 32, 1, 2)
    module = MaskedAutoencoder(golden.tower, decoder, True)
    blocks = Blocks(module, "always", torch.device("cpu"), {})
    torch._dynamo.reset()
    counters.clear()
    with blocks.compiled():
        found = run(golden.tower, golden.items()[0], golden.grid[:1])
    assert counters["stats"]["unique_graphs"] == 1
    tokens = int(golden.grid[0].prod()) // 4
    assert_close(found, [output[:tokens] for output in golden.outputs], TOLERANCE)


def test_full_has_every_feature() -> None:
    golden = Golden("full")
    assert golden.tower.progressive_proj is not None
    assert golden.tower.config.use_deformable_attention
    assert len(golden.outputs) == 4


def test_padded_input_whatever_the_padding_holds(golden: Golden) -> None:
    items = golden.items()
    padded = torch.full((len(items), 70, items[0].shape[1]), 1e4)
    for row, item in zip(padded, items, strict=True):
        row[: len(item)] = item
    assert_close(run(golden.tower, padded, golden.grid), golden.outputs, TOLERANCE)


@pytest.mark.parametrize("with_grid", [True, False])
def test_raw_frames(golden: Golden, with_grid: bool) -> None:
    lengths = (golden.grid.prod(1) // 4).tolist()
    expected = [output.split(lengths) for output in golden.outputs]
    for index, (item, grid) in enumerate(zip(golden.items(), golden.grid, strict=True)):
        frames = unpatchify(item[None], tuple(grid.tolist()), 14, 2).permute(0, 4, 1, 2, 3)
        outputs = run(golden.tower, frames, grid[None] if with_grid else None)
        assert_close(outputs, [parts[index] for parts in expected], TOLERANCE)


def test_raw_image_repeats_over_the_frames_of_a_patch(golden: Golden) -> None:
    image = torch.randn(2, 3, 56, 84, generator=torch.Generator().manual_seed(0))
    repeated = image[:, :, None].expand(-1, -1, 2, -1, -1)
    expected = run(golden.tower, repeated, None)
    assert expected[0].shape == (2 * 6, 64)
    assert_close(run(golden.tower, image, None), expected, 0)
    assert_close(run(golden.tower, image[:, :, None], None), expected, 0)


def test_odd_frame_count_repeats_the_last_frame(golden: Golden) -> None:
    frames = torch.randn(1, 3, 4, 28, 28, generator=torch.Generator().manual_seed(0))
    frames[:, :, 3] = frames[:, :, 2]
    assert_close(run(golden.tower, frames[:, :, :3], None), run(golden.tower, frames, None), 0)


def test_items_come_back_in_their_order_whatever_their_grids(golden: Golden) -> None:
    items, grids = golden.items(), list(golden.grid)
    order = [2, 0, 1, 0, 2, 1]
    outputs = run(
        golden.tower,
        torch.cat([items[index] for index in order]),
        torch.stack([grids[index] for index in order]),
    )
    lengths = (golden.grid.prod(1) // 4).tolist()
    expected = []
    for output in golden.outputs:
        parts = output.split(lengths)
        expected.append(torch.cat([parts[index] for index in order]))
    assert_close(outputs, expected, TOLERANCE)


def test_items_do_not_see_each_other(golden: Golden) -> None:
    pixels = golden.items()[0].repeat(3, 1)
    pixels[24:48] += 5
    pixels[48:] *= -3
    grid = golden.grid[:1].repeat(3, 1)
    batched = run(golden.tower, pixels, grid)
    alone = run(golden.tower, pixels[:24], grid[:1])
    assert_close([output[:6] for output in batched], alone, TOLERANCE)


def test_bfloat16_stays_near(golden: Golden) -> None:
    tower = ArlowVLVisionModel(golden.tower.config).eval()
    tower.load_state_dict(golden.tower.state_dict())
    outputs = run(tower.to(torch.bfloat16), golden.pixels, golden.grid)
    assert all(output.dtype is torch.bfloat16 for output in outputs)
    for ours, theirs in zip(outputs, golden.outputs, strict=True):
        error = (ours.float() - theirs).norm() / theirs.norm()
        assert error.item() < 0.02
