"""The tower's step on visible tokens, against its matrix products alone and against ViTMAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEModel

from arlow_trainer.engine import Ranks
from arlow_trainer.mae import encode_visible, visible_unit_batch, visible_view
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel

from .ranks import on_ranks
from .result import Result, milliseconds
from .timing import CPU, WALL, Times, joined, side_by_side

MAX_OVER_PRODUCTS = 1.15

TOWER, TOWER_PRODUCTS = "tower, all features", "its matrix products alone"
HEADLESS, HEADLESS_PRODUCTS = "tower without mergers", "its matrix products alone (2)"
VIT_MAE = "ViTMAE"


@dataclass(frozen=True)
class Size:
    """What is measured."""

    depth: int = 6
    width: int = 768
    heads: int = 12
    hidden_size: int = 1536
    batch: int = 8
    image_size: int = 224
    mask_ratio: float = 0.75
    processes: int = 3
    """Addresses of memory are drawn once a process, and worth a few per cent of a product."""
    rounds: int = 2

    @property
    def side(self) -> int:
        """Patches along a picture's side."""
        return self.image_size // 14

    @property
    def visible(self) -> int:
        """Visible tokens of a picture."""
        units = (self.side // 2) ** 2
        return 4 * (units - round(units * self.mask_ratio))


FULL = Size()
TOY = Size(width=48, heads=2, hidden_size=64, batch=2, image_size=56, processes=1)


@dataclass(frozen=True)
class Product:
    """`count` products of [rows, inner] by [inner, columns], one for each of `batch` matrices."""

    rows: int
    inner: int
    columns: int
    batch: int = 1
    count: int = 1
    both_gradients: bool = True
    """Whether the left factor needs a gradient: pixels, and weights of an average, need none."""

    @property
    def flops(self) -> int:
        """Operations forward and backward, a multiply-add being two."""
        once = 2 * self.batch * self.rows * self.inner * self.columns
        return self.count * once * (3 if self.both_gradients else 2)


class Headless(ArlowVLVisionModel):
    """The tower up to its last block, which is where ViTMAE's encoder ends."""

    def merge(self, tokens: Tensor, taps: Any) -> list[Tensor]:
        return [tokens]


def tower_products(size: Size, mergers: bool) -> list[Product]:
    """Lists the matrix products of a step on the visible tokens of a batch of pictures."""
    width, rows = size.width, size.batch * size.visible
    units = size.visible // 4
    products = [
        Product(rows, 3 * 2 * 14 * 14, width, both_gradients=False),
        Product(size.visible, units, width, batch=size.batch, both_gradients=False),
        Product(rows, width, width),
        *_block_products(size, size.visible),
    ]
    if mergers:
        taps = len(_config(size).deepstack_visual_indexes or ())
        unit = 4 * width
        products += [
            Product(rows // 4, unit, unit, count=1 + taps),
            Product(rows // 4, unit, size.hidden_size, count=1 + taps),
        ]
    return products


def vit_products(size: Size) -> list[Product]:
    """Lists the matrix products of ViTMAE's step: it embeds hidden patches too, adds a token."""
    embedding = Product(size.batch * size.side**2, 3 * 14 * 14, size.width, both_gradients=False)
    return [embedding, *_block_products(size, size.visible + 1)]


def _block_products(size: Size, tokens: int) -> list[Product]:
    width, rows, heads = size.width, size.batch * tokens, size.batch * size.heads
    return [
        Product(rows, width, 3 * width, count=size.depth),
        Product(tokens, width // size.heads, tokens, batch=heads, count=size.depth),
        Product(tokens, tokens, width // size.heads, batch=heads, count=size.depth),
        Product(rows, width, width, count=size.depth),
        Product(rows, width, 4 * width, count=size.depth),
        Product(rows, 4 * width, width, count=size.depth),
    ]


def run_products(products: Sequence[Product]) -> Callable[[], None]:
    """Returns the products forward and backward as work, each on matrices of its own."""
    prepared = [(product, *_factors(product)) for product in products for _ in range(product.count)]

    def run() -> None:
        for _, left, right, _ in prepared:
            torch.matmul(left, right)
        for product, left, right, gradient in prepared:
            torch.matmul(left.mT, gradient)
            if product.both_gradients:
                torch.matmul(gradient, right.mT)

    return run


def _factors(product: Product) -> tuple[Tensor, Tensor, Tensor]:
    many = (product.batch,) if product.batch > 1 else ()
    left = torch.randn(*many, product.rows, product.inner)
    # Linear layers keep their weights transposed.
    right = torch.randn(*many, product.columns, product.inner).mT
    return left, right, torch.randn(*many, product.rows, product.columns)


def _config(size: Size, **fields: Any) -> ArlowVisionConfig:
    return ArlowVisionConfig(
        depth=size.depth,
        embed_dim=size.width,
        num_heads=size.heads,
        hidden_size=size.hidden_size,
        **fields,
    )


def _tower_step(tower: ArlowVLVisionModel, size: Size) -> Callable[[], None]:
    count = (size.side // 2) ** 2
    units = visible_unit_batch(range(size.batch), count, round(count * size.mask_ratio))
    patches = torch.randn(size.batch, size.visible, tower.config.patch_features)

    def forward() -> list[Tensor]:
        view = visible_view(tower, (1, size.side, size.side), units)
        merged, deepstack = encode_visible(tower, patches, view)
        return [merged, *deepstack]

    return _training_step(tower, forward)


def _vit_step(size: Size) -> Callable[[], None]:
    config = ViTMAEConfig(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        image_size=size.image_size,
        patch_size=14,
        mask_ratio=size.mask_ratio,
        hidden_act="gelu_pytorch_tanh",
        attn_implementation="sdpa",
    )
    model = ViTMAEModel(config)
    pixels = torch.randn(size.batch, 3, size.image_size, size.image_size)
    return _training_step(model, lambda: [model(pixels).last_hidden_state])


def _training_step(model: nn.Module, forward: Callable[[], list[Tensor]]) -> Callable[[], None]:
    """Returns a forward and backward pass of a model, gradients forgotten, as work."""
    model.train()
    gradients = [torch.randn_like(output) for output in forward()]

    def run() -> None:
        torch.autograd.backward(forward(), gradients)
        model.zero_grad()

    return run


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures all of them in turn, in several processes one after another."""
    runs = []
    for number in range(size.processes):
        progress(f"process {number + 1} of {size.processes}")
        runs.append(on_ranks(1, _measure, size))
    cpu, wall = (joined(times) for times in zip(*runs, strict=True))
    products = {
        TOWER: tower_products(size, mergers=True),
        TOWER_PRODUCTS: tower_products(size, mergers=True),
        HEADLESS: tower_products(size, mergers=False),
        HEADLESS_PRODUCTS: tower_products(size, mergers=False),
        VIT_MAE: vit_products(size),
    }
    flops = {name: sum(one.flops for one in parts) for name, parts in products.items()}

    def over(name: str, to: str) -> str:
        return f"{cpu.ratio(name, to):.3f} (wall time {wall.ratio(name, to):.3f})"

    met = cpu.ratio(TOWER, TOWER_PRODUCTS) <= MAX_OVER_PRODUCTS

    def over_vit_mae(name: str) -> str:
        """Time, operations and time for an operation over ViTMAE's, and what they say."""
        ratio, more = cpu.ratio(name, VIT_MAE), flops[name] / flops[VIT_MAE]
        verdicts = ["met" if value <= 1 else "missed" for value in (ratio, ratio / more)]
        return (
            f"**{over(name, VIT_MAE)}**, for {more:.3f} times the operations: {ratio / more:.3f} "
            f"per operation. Target: no slower: {verdicts[0]}; per operation: {verdicts[1]}."
        )

    return Result(
        "The tower's step on visible tokens",
        f"Forward and backward, no optimiser: {size.depth} blocks, {size.width} wide, {size.heads} "
        f"heads, output {size.hidden_size} wide, {size.batch} pictures of {size.image_size} px, "
        f"mask ratio {size.mask_ratio}: {size.visible} visible tokens a picture. The masks' "
        "geometry is picked from the grid's tables in every step. The products are `torch.matmul` "
        "on matrices of the same shapes, forward and both gradients, attention's included. ViTMAE "
        "is transformers' `ViTMAEModel` with SDPA, of equal width, depth, activation and mask "
        "ratio; it has neither mergers nor DeepStack, so the tower is also measured up to its last "
        "block. CPU time of "
        f"the one thread, {size.rounds} rounds in each of {size.processes} processes.",
        ("one step", "median", "fastest", "wall time", "GFLOP", "GFLOP/s"),
        [
            (
                name.removesuffix(" (2)"),
                milliseconds(cpu.typical(name)),
                milliseconds(cpu.least(name)),
                milliseconds(wall.typical(name)),
                f"{flops[name] / 1e9:.1f}",
                f"{flops[name] / 1e9 / cpu.typical(name):.1f}",
            )
            for name in products
        ],
        [
            f"Tower over its products: **{over(TOWER, TOWER_PRODUCTS)}**; without mergers "
            f"{over(HEADLESS, HEADLESS_PRODUCTS)}. Target: at most {MAX_OVER_PRODUCTS}: "
            f"{'met' if met else 'missed'}.",
            f"The tower over ViTMAE: {over_vit_mae(TOWER)} It has mergers, DeepStack's included, "
            "which ViTMAE lacks.",
            f"The tower up to its last block over ViTMAE: {over_vit_mae(HEADLESS)}",
        ],
    )


def _measure(ranks: Ranks, size: Size) -> tuple[Times, ...]:
    """Returns CPU times and wall times."""
    torch.manual_seed(0)
    headless = Headless(_config(size, deepstack_visual_indexes=[]))
    work = {
        TOWER: _tower_step(ArlowVLVisionModel(_config(size)), size),
        TOWER_PRODUCTS: run_products(tower_products(size, mergers=True)),
        HEADLESS: _tower_step(headless, size),
        HEADLESS_PRODUCTS: run_products(tower_products(size, mergers=False)),
        VIT_MAE: _vit_step(size),
    }
    return side_by_side(work, size.rounds, (CPU, WALL))
