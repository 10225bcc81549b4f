"""The tower as a Hugging Face model: size, errors, gradients, precision, saving and loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from export_reader import read_without_project
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel

from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel
from support.gpu import needs_gpu

SMALL = {"depth": 6, "embed_dim": 48, "hidden_size": 64, "num_heads": 2}


def tower(**fields: Any) -> ArlowVLVisionModel:
    torch.manual_seed(0)
    return ArlowVLVisionModel(ArlowVisionConfig(**(SMALL | fields)))


def batch() -> tuple[Tensor, Tensor]:
    """Two images and a video, packed."""
    grid = torch.tensor([[1, 4, 6], [2, 4, 4], [1, 4, 6]])
    generator = torch.Generator().manual_seed(1)
    return torch.randn(int(grid.prod(1).sum()), 1176, generator=generator), grid


def outputs(model: ArlowVLVisionModel, *inputs: Tensor) -> list[Tensor]:
    out = model(*inputs)
    return [out[0], *out[1]] if isinstance(out, tuple) else [out]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_full_size_parameter_counts() -> None:
    with torch.device("meta"):
        model = ArlowVLVisionModel(ArlowVisionConfig())
    e, h = 1536, 3072
    block = 2 * 2 * e + (3 * e * e + 3 * e) + (e * e + e) + (4 * e * e + 4 * e) + (4 * e * e + e)
    merger = 2 * 4 * e + (16 * e * e + 4 * e) + (4 * e * h + h)
    assert count(model.blocks) == 48 * block == 1_359_912_960
    assert count(model.merger) == merger == 56_644_608
    assert count(model.deepstack_mergers) == 3 * merger
    assert count(model.patch_embed) == 1176 * e
    assert model.progressive_proj is not None
    assert count(model.progressive_proj) == e * e + e
    assert count(model) == 48 * block + 4 * merger + 1176 * e + e * e + e == 1_590_658_560


def test_new_weights() -> None:
    model = tower(embed_dim=96)
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_q" in name:
            expected = 1.0 if name.endswith("weight") else 0.0
            assert torch.all(parameter == expected), name
        elif name.endswith("bias"):
            assert torch.all(parameter == 0), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name


@pytest.mark.parametrize("progressive", [True, False])
def test_state_dict_names(progressive: bool) -> None:
    model = tower(
        depth=1, use_progressive_patches=progressive, deepstack_visual_indexes=[0] * progressive
    )
    linear = ("weight", "bias")
    names = {"patch_embed.proj.weight"}
    parts = ["norm1", "norm2", "attn.qkv", "attn.proj", "fc1", "fc2"]
    names |= {f"blocks.0.{part}.{kind}" for part in parts for kind in linear}
    mergers = ["merger", "deepstack_mergers.0"] if progressive else ["merger"]
    parts = ["ln_q", "mlp.0", "mlp.2"]
    names |= {f"{merger}.{part}.{kind}" for merger in mergers for part in parts for kind in linear}
    names |= {f"progressive_proj.{kind}" for kind in linear if progressive}
    assert set(model.state_dict()) == names


def test_without_deepstack_the_tokens_come_alone() -> None:
    pixels, grid = batch()
    assert isinstance(tower(depth=2)(pixels, grid), Tensor)
    visual, deepstack = tower()(pixels, grid)
    assert visual.shape == (20, 64)
    assert [feature.shape for feature in deepstack] == [visual.shape] * 3


@pytest.mark.parametrize(
    ("pixels", "grid", "words"),
    [
        (torch.zeros(24, 1175), [[1, 4, 6]], "1175 features a patch: this tower takes 1176"),
        (torch.zeros(23, 1176), [[1, 4, 6]], "has 23 patches, grid_thw counts 24"),
        (torch.zeros(2, 24, 1176), [[1, 4, 6]], "has 2 items of at most 24 patches"),
        (torch.zeros(1, 20, 1176), [[1, 4, 6]], "counts 1 items of at most 24"),
        (torch.zeros(15, 1176), [[1, 3, 5]], r"grid_thw\[0\] is 1 x 3 x 5.*multiples"),
        (torch.zeros(0, 1176), [[0, 4, 6]], r"grid_thw\[0\] is 0 x 4 x 6"),
        (torch.zeros(24, 1176), [1, 4, 6], r"must be \[items, 3\]"),
        (torch.zeros(24, 1176), None, "grid_thw is missing"),
        (torch.zeros(1176), [[1, 4, 6]], "has 1 dimensions"),
        (torch.zeros(1, 1, 56, 56), None, "has 1 channels"),
        (torch.zeros(1, 3, 56, 57), None, "give multiples of these"),
        (torch.zeros(1, 3, 56, 56), [[1, 4, 6]], "make 1 x 4 x 4 patches"),
        (torch.zeros(2, 3, 56, 56), [[1, 4, 4]], "has 2 items"),
        (torch.zeros(1, 3, 42, 56), None, "multiples of spatial_merge_size 2"),
    ],
)
def test_mistakes_are_named(pixels: Tensor, grid: list[Any] | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tower(depth=1)(pixels, None if grid is None else torch.tensor(grid))


def test_gradient_checkpointing_changes_no_gradient() -> None:
    pixels, grid = batch()
    gradients = []
    for checkpointing in (False, True):
        model = tower().train()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert all(block.gradient_checkpointing for block in model.blocks)
        sum(output.square().mean() for output in outputs(model, pixels, grid)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    plain, checkpointed = gradients
    assert all(gradient is not None for gradient in plain.values())
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name


def test_gradient_checkpointing_keeps_fewer_activations() -> None:
    pixels, grid = batch()

    def saved(checkpointing: bool) -> int:
        model, total = tower().train(), 0
        if checkpointing:
            model.activation_checkpointing_enable()

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs(model, pixels, grid)
        return total

    assert saved(True) < saved(False) / 2


def test_layer_norm_in_half_precision_computes_in_float32() -> None:
    norm = tower(depth=1).blocks[0].norm1
    x = (100 * torch.randn(64, 48)).bfloat16()
    exact = norm(x.float()).bfloat16()
    assert torch.equal(norm.bfloat16()(x), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains(dtype: torch.dtype) -> None:
    pixels, grid = batch()
    model = tower().to(dtype).train()
    results = outputs(model, pixels, grid)
    assert all(result.dtype is dtype for result in results)
    sum(result.float().square().mean() for result in results).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype is dtype
        assert torch.isfinite(parameter.grad).all(), name


def test_autocast_stays_near_float32() -> None:
    pixels, grid = batch()
    model = tower().eval()
    with torch.no_grad():
        exact = outputs(model, pixels, grid)
        with torch.autocast("cpu", torch.bfloat16):
            rough = outputs(model, pixels, grid)
    for ours, theirs in zip(rough, exact, strict=True):
        assert ((ours.float() - theirs).norm() / theirs.norm()).item() < 0.02


def test_attention_with_the_bias_needs_no_fallback() -> None:
    pixels, grid = batch()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        outputs(tower(), pixels, grid)


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/flash-attn"])
def test_another_attention_is_refused_in_words(name: str, tmp_path: Path) -> None:
    config = tower().config
    words = f"attn_implementation is '{name}'.*give 'sdpa'"
    with pytest.raises(ValueError, match=words):
        AutoModel.from_config(config, attn_implementation=name)
    model = tower()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=words):
        ArlowVLVisionModel.from_pretrained(tmp_path, attn_implementation=name)
    with pytest.raises(ValueError, match=words):
        model.set_attn_implementation(name)
    given = ArlowVLVisionModel.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert given.config._attn_implementation == model.config._attn_implementation == "sdpa"


def test_attention_may_be_eager_and_sdpa_again() -> None:
    pixels, grid = batch()
    model = tower()
    before = outputs(model, pixels, grid)
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        assert model.blocks[0].attn.config._attn_implementation == name
        for one, other in zip(outputs(model, pixels, grid), before, strict=True):
            torch.testing.assert_close(one, other)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_attention_with_the_bias_is_memory_efficient_on_a_gpu(dtype: torch.dtype) -> None:
    # Turing has no other fused kernel that takes a bias; 6 x 6 tokens are no multiple of 8.
    pixels, grid = torch.randn(36, 1176), torch.tensor([[1, 6, 6]])
    model = tower(embed_dim=128).eval()
    expected = outputs(model, pixels, grid)
    model.to("cuda", dtype)
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        actual = outputs(model, pixels.cuda(), grid.cuda())
    for ours, theirs in zip(actual, expected, strict=True):
        error = (ours.float().cpu() - theirs).norm() / theirs.norm()
        assert error.item() < 0.01


def test_run_blocks_serves_any_choice_of_tokens_and_positions() -> None:
    model = tower(use_deformable_attention=False).eval()
    tokens = torch.randn(2, 5, 48)
    angles = torch.randn(2, 5, 12).repeat(1, 1, 2)
    out, taps = model.run_blocks(tokens, angles.cos(), angles.sin(), None)
    assert out.shape == tokens.shape
    assert len(taps) == 3
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled, _ = model.run_blocks(
        tokens[:, order], angles[:, order].cos(), angles[:, order].sin(), None
    )
    torch.testing.assert_close(shuffled, out[:, order], atol=1e-5, rtol=1e-5)


def test_mergers_take_units_or_tokens_in_merge_order() -> None:
    merger = tower(depth=1).merger
    tokens = torch.randn(2, 12, 48)
    merged = merger(tokens)
    assert merged.shape == (2, 3, 64)
    assert torch.equal(merger(tokens.view(2, 3, 192)), merged)


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    model = tower().eval()
    model.save_pretrained(tmp_path)
    pixels, grid = batch()
    expected = outputs(model, pixels, grid)
    for loader in (ArlowVLVisionModel, AutoModel):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, ArlowVLVisionModel)
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name
        for ours, theirs in zip(outputs(loaded.eval(), pixels, grid), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_an_export_loads_without_this_project(tmp_path: Path) -> None:
    model = tower().eval()
    model.save_pretrained(tmp_path / "vision_encoder")
    pixels, grid = batch()
    expected = outputs(model, pixels, grid)
    torch.save((pixels, grid), tmp_path / "inputs.pt")
    read_without_project(
        tmp_path,
        """
        import torch
        from transformers import AutoModel
        model = AutoModel.from_pretrained("vision_encoder", trust_remote_code=True).eval()
        assert type(model).__name__ == "ArlowVLVisionModel"
        visual, deepstack = model(*torch.load("inputs.pt"))
        torch.save([visual, *deepstack], "outputs.pt")
        """,
    )
    actual = torch.load(tmp_path / "outputs.pt")
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)
