"""The decoder against a plain computation, token by token, and on a photograph; its tables."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import skimage.data
import torch
from mae_cases import CASES, IMAGE, VIDEO, Case, build_autoencoder, draw_frames, draw_units
from PIL import Image

from arlow_trainer.mae import (
    MaskedAutoencoder,
    PixelDecoder,
    encode_visible,
    pixel_targets,
    visible_unit_batch,
    visible_view,
)
from arlow_trainer.mae.autoencoder import decoder_bias, position_table
from arlow_trainer.mae.view import MAX_TABLES, axis_interpolation, grid_bias, grid_rope
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel

Place = tuple[int, int, int]  # temporal step, row, column, in patches
Weights = dict[str, np.ndarray]


def unit_places(unit: int, step: int, width: int) -> list[Place]:
    """The four patches of a merge unit at a temporal step of a grid `width` patches wide."""
    row, column = divmod(unit, width // 2)
    return [(step, 2 * row + y, 2 * column + x) for y in range(2) for x in range(2)]


def norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def sines(place: Place, width: int) -> np.ndarray:
    """A third of the width each for step, row and column: sines, then cosines."""
    pairs, out = width // 6, np.zeros(width)
    for (axis, number), pair in itertools.product(enumerate(place), range(pairs)):
        angle = number / 10_000 ** (pair / pairs)
        out[2 * pairs * axis + pair] = math.sin(angle)
        out[2 * pairs * axis + pairs + pair] = math.cos(angle)
    return out


def attend(
    weights: Weights, name: str, tokens: np.ndarray, places: list[Place], case: Case, heads: int
) -> np.ndarray:
    """Each token's own mixture of all: by content, and the less the farther they are apart."""
    sides = [max(1, steps - 1) for steps in case.grid]
    width = tokens.shape[1] // heads
    parts = linear(weights, f"{name}.qkv", norm(weights, f"{name}.norm1", tokens))
    out = np.empty_like(tokens)
    for head, query in itertools.product(range(heads), range(len(tokens))):
        q, k, v = (parts[:, (part * heads + head) * width :][:, :width] for part in range(3))
        steepness = 32 * 2 ** (-6 * head / (heads - 1))
        scores = [
            q[query] @ k[key] / math.sqrt(width)
            - steepness
            * math.dist(
                [n / s for n, s in zip(places[query], sides, strict=True)],
                [n / s for n, s in zip(places[key], sides, strict=True)],
            )
            for key in range(len(tokens))
        ]
        shares = np.exp(np.array(scores) - max(scores))
        out[query, head * width :][:width] = shares @ v / shares.sum()
    return linear(weights, f"{name}.proj", out)


def plain_predictions(
    decoder: PixelDecoder,
    sources: list[np.ndarray],
    shown: list[int],
    case: Case,
) -> np.ndarray:
    """Predictions for one sample's hidden patches, from its sources [units, hidden_size] each."""
    weights = {name: value.numpy() for name, value in decoder.state_dict().items()}
    t, h, w = case.grid
    features: dict[Place, np.ndarray] = {}
    for number, (step, unit) in enumerate(itertools.product(range(t), shown)):
        made = sum(
            linear(weights, f"source_projs.{i}", norm(weights, f"source_norms.{i}", source[number]))
            for i, source in enumerate(sources)
        )
        features |= zip(unit_places(unit, step, w), np.split(made, 4), strict=True)
    places = list(itertools.product(range(t), range(h), range(w)))
    width = len(weights["mask_token"])
    tokens = np.stack(
        [features.get(place, weights["mask_token"]) + sines(place, width) for place in places]
    )
    for number in range(len(decoder.blocks)):
        name = f"blocks.{number}"
        tokens = tokens + attend(weights, name, tokens, places, case, decoder.heads)
        inner = linear(weights, f"{name}.fc1", norm(weights, f"{name}.norm2", tokens))
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        tokens = tokens + linear(weights, f"{name}.fc2", inner)
    made = dict(zip(places, linear(weights, "head", norm(weights, "norm", tokens)), strict=True))
    hidden = sorted(set(range(h * w // 4)) - set(shown))
    return np.stack(
        [
            made[place]
            for step, unit in itertools.product(range(t), hidden)
            for place in unit_places(unit, step, w)
        ]
    )


@pytest.mark.parametrize("case", [IMAGE, VIDEO, Case(1, 8, 24), Case(6, 12, 8)], ids=str)
@torch.no_grad()
def test_predictions_are_those_of_a_plain_computation(case: Case) -> None:
    """Every feature at its place, every place known, every prediction in the targets' order."""
    model = build_autoencoder().double()
    frames, units = draw_frames(case), draw_units(case)
    made = model.reconstruct(frames, units)
    visible = made.view.visible[:, :, None].expand(-1, -1, made.patches.shape[-1])
    merged, taps = encode_visible(model.tower, made.patches.gather(1, visible).double(), made.view)
    assert len(taps) == 3
    for number in range(case.batch):
        sources = [source[number].numpy() for source in (merged, *taps)]
        expected = plain_predictions(model.decoder, sources, units[number].tolist(), case)
        np.testing.assert_allclose(made.predictions[number].numpy(), expected, atol=1e-5)
        assert expected.std(axis=0).mean() > 0.01, "all predictions are alike"


def test_a_photograph_is_learned_place_by_place() -> None:
    """Under masks drawn anew, far below what the best single prediction for all patches reaches:
    without places, or with predictions in another order than the targets, that is the floor."""
    torch.manual_seed(0)
    config = ArlowVisionConfig(
        depth=2, embed_dim=48, hidden_size=64, num_heads=2, patch_size=4, initializer_range=0.1
    )
    model = MaskedAutoencoder(
        ArlowVLVisionModel(config), PixelDecoder(config, 48, 2, 4), normalized_pixel_loss=True
    )
    photograph = Image.fromarray(skimage.data.astronaut()).resize((32, 32))
    frames = torch.from_numpy(np.array(photograph)).expand(8, 1, 32, 32, 3)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(150):
        units = visible_unit_batch(range(8 * step, 8 * step + 8), 16, 12)
        loss = model(frames, units).mean()
        loss.backward()
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    with torch.no_grad():
        targets = pixel_targets(model.reconstruct(frames[:1], units[:1]).patches, True)
    floor = targets.var(dim=1, correction=0).mean().item()
    assert np.mean(losses[-20:]) < 0.5 * floor, (losses[::10], floor)


GRID = (2, 4, 6)


def all_tables(device: torch.device, dtype: torch.dtype, grid: Place = GRID) -> list[torch.Tensor]:
    return [
        position_table(grid, 32, device, dtype),
        decoder_bias(grid, 4, device, dtype),
        grid_bias(grid, 0.25, 4.0, device, dtype),
        *grid_rope(grid, 24, (8, 8, 8), device),
        axis_interpolation(grid[1] // 2, device),
    ]


def test_tables_are_computed_once_a_grid_device_and_dtype() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    first, half = all_tables(cpu, torch.float32), all_tables(cpu, torch.float16)
    for one, again in zip(first, all_tables(cpu, torch.float32), strict=True):
        assert one is again
    assert [table.dtype for table in half[:3]] == [torch.float16] * 3
    assert all(table.is_meta for table in all_tables(meta, torch.float32))
    for one, other in zip(first[:3], half[:3], strict=True):
        torch.testing.assert_close(other.float(), one, rtol=1e-3, atol=1e-3)
    for side in range(2, 4 * MAX_TABLES, 2):
        all_tables(cpu, torch.float32, (1, side, side))
    for one, again in zip(first, all_tables(cpu, torch.float32), strict=True):
        assert one is not again, "nothing is ever dropped"
        assert torch.equal(one, again)


def test_a_models_tables_follow_its_dtype_and_are_not_part_of_it() -> None:
    frames, units = draw_frames(IMAGE), draw_units(IMAGE)
    # First of all in inference mode, whose tensors autograd refuses.
    model = build_autoencoder()
    for table in (position_table, decoder_bias, grid_bias, grid_rope, axis_interpolation):
        table.cache_clear()
    with torch.inference_mode():
        model(frames, units)
    names = set(model.state_dict())
    loss = model(frames, units)
    loss.sum().backward()
    assert set(model.state_dict()) == names
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(frames, units), loss)
    rounded = copy.deepcopy(model).bfloat16()(frames, units)
    torch.testing.assert_close(rounded, loss, rtol=0.02, atol=0)
    torch.testing.assert_close(model.double()(frames, units), loss, rtol=1e-5, atol=0)
    assert model.to("meta")(frames.to("meta"), units.to("meta")).shape == (IMAGE.batch,)


AWKWARD = Case(1, 12, 20, 0.65)
"""20 visible tokens of 60: no multiples of 8."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", [*CASES, AWKWARD], ids=str)
def test_biases_have_rows_that_kernels_take(case: Case, dtype: torch.dtype) -> None:
    """The memory-efficient kernel takes rows at multiples of 8 elements only."""
    fields = {"depth": 1, "deepstack_visual_indexes": [], "deformable_attention_window": 0.0}
    tower = build_autoencoder(**fields).tower.to(dtype)
    shown = visible_view(tower, case.grid, draw_units(case)).bias
    everything = decoder_bias(case.grid, 4, torch.device("cpu"), dtype)
    assert shown is not None
    counts = (4 * case.grid[0] * draw_units(case).shape[1], math.prod(case.grid))
    assert case is not AWKWARD or counts == (20, 60)
    for bias, count in zip((shown, everything), counts, strict=True):
        assert bias.dtype is dtype
        assert bias.shape[-2:] == (count, count)
        assert bias.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in bias.stride()[:-1])
