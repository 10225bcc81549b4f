"""Forward and backward on a GPU: ours plain and compiled, beside the peers and the products alone.

The peers are transformers' ViTMAE and VideoMAE at equal width, depth, heads, patches and decoder;
they have neither bias nor rotation nor DeepStack. The matrix products are those of our model, one
after another, with nothing between them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import nn

from arlow_trainer.config import Modality, TrainingSection
from arlow_trainer.engine import (
    Ranks,
    build_autoencoder,
    device_name,
    effective_precision,
    peak_flops,
)
from arlow_trainer.engine.attention import attention_kernels, kernel, set_gpu_switches
from arlow_trainer.engine.compilation import Blocks, one_line
from arlow_trainer.engine.graphs import CudaRecorder, Graph
from arlow_trainer.mae import visible_unit_batch
from arlow_trainer.mae.view import holding_tables
from arlow_trainer.plan.flops import clip_training_flops, image_training_flops
from arlow_trainer.plan.parameters import deepstack_taps, mlp_width, patch_features
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image

from .ranks import on_ranks
from .result import NOT_RUN, Result, milliseconds
from .samples import TOY_MICRO_BATCHES, build_run, noise
from .timing import WALL

TITLE = "The model beside its peers on a GPU"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PRODUCTS, PLAIN, COMPILED = "the matrix products alone", "ours, plain", "ours, blocks compiled"
GRAPHED = "ours, one CUDA graph"
SCALE = 64.0
"""Of the losses: fp16 loses small gradients."""


@dataclass(frozen=True)
class Size:
    """What is measured: a preset with more said, micro-batches of images and of clips.

    Those of a rank of eight come first, then those of one. Without `compiling`, blocks that would
    be compiled run as they are.
    """

    preset: str = "arlow-vision-3072"
    training: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[int, ...] = (24, 96, 192)
    clips: tuple[int, ...] = (8, 24)
    rounds: int = 6
    compiling: bool = True
    needs_gpu: bool = True


FULL = Size()
TOY = Size(**TOY_MICRO_BATCHES, compiling=False)


@dataclass(frozen=True)
class Row:
    """Median seconds of a micro-batch of one kind, forward and backward; the first time's.

    `seconds` is None where there is none, and `problem` says why.
    """

    modality: Modality
    samples: int
    what: str
    seconds: float | None
    first: float
    problem: str = ""


@dataclass(frozen=True)
class Measured:
    """What the process measured."""

    device: str
    precision: str
    peak: float | None
    rows: list[Row]
    kernels: Mapping[Modality, str]


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures all in one process."""
    if size.needs_gpu and not torch.cuda.is_available():
        return Result(TITLE, NOT_RUN)
    training = build_run(size.preset, dict(size.training), nodes={"gpus": 1}).spec.training
    progress(f"{size.preset}: products, peers, plain and compiled blocks")
    return table(on_ranks(1, measure_rows, training, size), training, size)


def table(got: Measured, training: TrainingSection, size: Size) -> Result:
    """Returns the table of what was measured."""
    flops = {"image": image_training_flops(training), "video": clip_training_flops(training)}
    peers = {
        (row.modality, row.samples): row.seconds for row in got.rows if row.what in PEERS.values()
    }
    rows = []
    for row in got.rows:
        kind = "images" if row.modality == "image" else "clips"
        label = f"{row.samples} {kind}: {row.what}"
        if row.seconds is None:
            rows.append((label, row.problem, "-", "-", "-", "-"))
            continue
        peer = peers[row.modality, row.samples]
        work = row.samples * flops[row.modality]
        rows.append(
            (
                label,
                milliseconds(row.seconds),
                f"{row.samples / row.seconds:,.1f}",
                "-" if peer is None else f"{peer / row.seconds:.2f}",
                "unknown" if got.peak is None else f"{work / row.seconds / got.peak:.1%}",
                f"{row.first:.1f} s",
            )
        )
    return Result(
        TITLE,
        f"`{size.preset}` in {got.precision} on {got.device}, forward and backward without an "
        f"update, noise on the device, medians of {size.rounds} after two. The peers are "
        "transformers' ViTMAE and VideoMAE at equal width, depth, heads, patches and decoder, "
        "without bias, rotation and DeepStack. Of a peer's speed: how many times as fast. MFU "
        "counts our model's matrix products in every row.",
        ("a micro-batch", "time", "samples/s", "of a peer's speed", "MFU", "first time"),
        rows,
        [f"Attention: {got.kernels['image']} for images, {got.kernels['video']} for clips."],
    )


PEERS: dict[Modality, str] = {"image": "ViTMAE", "video": "VideoMAE"}


def measure_rows(ranks: Ranks, training: TrainingSection, size: Size) -> Measured:
    """Measures all in this process, whose switches for attention and compiling it changes."""
    device = ranks.device
    precision = effective_precision(training.precision, device)
    dtype = DTYPES[precision]
    if device.type == "cuda":
        set_gpu_switches()
    if not size.compiling:
        torch.compiler.set_stance("force_eager")
    kernels = attention_kernels(training, device)
    work: list[tuple[Modality, Tokens, tuple[int, ...]]] = [
        ("image", tokens_per_image(training), size.images),
        ("video", tokens_per_clip(training), size.clips),
    ]
    rows: list[Row] = []
    for modality, tokens, counts in work:
        peer = _peer(training, modality).to(device, dtype).train()
        for count in counts:
            run = _peer_step(peer, training, tokens, modality, count, device, dtype)
            # What torch takes by itself: theirs is attention without a bias.
            with kernel("cudnn"):
                rows.append(_row(modality, count, PEERS[modality], run, size.rounds, device))
        del peer, run
        _release(device)
        for count in counts:
            run = _products(training, tokens, count, device, dtype)
            rows.append(_row(modality, count, PRODUCTS, run, size.rounds, device))
            del run
            _release(device)
        ours = build_autoencoder(training, device).to(device, dtype).train()
        blocks = Blocks(ours, "always", device, kernels)
        for count in counts:
            run = _our_step(ours, training, tokens, modality, count, device)
            with kernel(kernels[modality]):
                rows.append(_row(modality, count, PLAIN, run, size.rounds, device))
                rows.append(_compiled_row(blocks, modality, count, run, size.rounds, device))
            # The first is a rank of eight's, small enough for a graph.
            if device.type == "cuda" and count == counts[0]:
                with kernel(kernels[modality]), blocks.compiled():
                    graphed = _graph_step(ours, training, tokens, modality, count, device, run)
                    rows.append(_row(modality, count, GRAPHED, graphed, size.rounds, device))
                del graphed
        del ours, run
        _release(device)
    rows.sort(key=lambda row: (row.modality, row.samples))
    return Measured(
        device_name(device),
        precision,
        peak_flops(device, precision),
        rows,
        kernels,
    )


def _compiled_row(
    blocks: Blocks,
    modality: Modality,
    samples: int,
    run: Callable[[], object],
    rounds: int,
    device: torch.device,
) -> Row:
    """The row of compiled blocks, or of why they are plain: one that cannot be compiled ends it
    for its modality."""
    if blocks.plain_because is None:
        try:
            with blocks.compiled():
                return _row(modality, samples, COMPILED, run, rounds, device)
        except Exception as error:
            # The page is worth more than this row.
            blocks.give_up(one_line(error))
    return Row(modality, samples, COMPILED, None, 0.0, f"plain: {blocks.plain_because}")


def _row(
    modality: Modality,
    samples: int,
    what: str,
    run: Callable[[], object],
    rounds: int,
    device: torch.device,
) -> Row:
    taken = []
    try:
        for _ in range(rounds + 2):  # two to warm up
            start = WALL()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(WALL() - start)
    except torch.OutOfMemoryError:
        _release(device)
        return Row(modality, samples, what, None, 0.0, "no memory")
    return Row(modality, samples, what, median(taken[2:]), taken[0])


def _our_step(
    module: nn.Module,
    training: TrainingSection,
    tokens: Tokens,
    modality: Modality,
    samples: int,
    device: torch.device,
) -> Callable[[], None]:
    hidden = training.mae.hidden_unit_count(tokens.units)
    units = visible_unit_batch(range(samples), tokens.units, hidden).to(device)
    pixels = noise(training, modality, samples).to(device)

    def run() -> None:
        (module(pixels, units).sum() * SCALE).backward()

    return run


def _graph_step(
    module: nn.Module,
    training: TrainingSection,
    tokens: Tokens,
    modality: Modality,
    samples: int,
    device: torch.device,
    plain: Callable[[], None],
) -> Callable[[], object]:
    """As `_our_step` by a graph, recorded now; `plain` is its plain pass."""
    hidden = training.mae.hidden_unit_count(tokens.units)
    units = visible_unit_batch(range(samples), tokens.units, hidden).to(device)
    pixels = noise(training, modality, samples).to(device)
    tables: dict[Hashable, Any] = {}
    with holding_tables(tables):
        plain()
    graph = Graph(pixels, units, tables, CudaRecorder())
    graph.record(module)
    return lambda: graph.replay(pixels, units, samples, SCALE)


def _peer(training: TrainingSection, modality: Modality) -> nn.Module:
    from transformers import (
        VideoMAEConfig,
        VideoMAEForPreTraining,
        ViTMAEConfig,
        ViTMAEForPreTraining,
    )

    model, mae = training.model, training.mae
    common: dict[str, Any] = {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "intermediate_size": mlp_width(model),
        "image_size": training.data.image_size,
        "patch_size": model.patch_size,
        "decoder_hidden_size": mae.decoder_dim,
        "decoder_num_hidden_layers": mae.decoder_depth,
        "decoder_num_attention_heads": mae.decoder_heads,
        "decoder_intermediate_size": 4 * mae.decoder_dim,
        "norm_pix_loss": mae.normalized_pixel_loss,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "sdpa",
    }
    if modality == "image":
        return ViTMAEForPreTraining(ViTMAEConfig(mask_ratio=mae.mask_ratio, **common))
    frames = {
        "num_frames": training.data.clip_frames,
        "tubelet_size": model.temporal_patch_size,
    }
    return VideoMAEForPreTraining(VideoMAEConfig(**frames, **common))


def _peer_step(
    peer: nn.Module,
    training: TrainingSection,
    tokens: Tokens,
    modality: Modality,
    samples: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[], None]:
    side = training.data.image_size
    if modality == "image":
        images = torch.randn(samples, 3, side, side, device=device, dtype=dtype)

        def run() -> None:
            (peer(images).loss * SCALE).backward()

        return run
    frames = training.data.clip_frames
    clips = torch.randn(samples, frames, 3, side, side, device=device, dtype=dtype)
    order = torch.rand(samples, tokens.total, device=device).argsort(dim=1)
    hidden = order >= tokens.visible

    def run_clips() -> None:
        (peer(clips, bool_masked_pos=hidden).loss * SCALE).backward()

    return run_clips


def _products(
    training: TrainingSection,
    tokens: Tokens,
    samples: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[], None]:
    """Each product forward, and the two of its gradients, as often as the model has it."""
    held = [
        (
            torch.randn(rows, inner, device=device, dtype=dtype),
            torch.randn(outer, inner, device=device, dtype=dtype),
            torch.randn(rows, outer, device=device, dtype=dtype),
            times,
        )
        for rows, inner, outer, times in _shapes(training, tokens, samples)
    ]

    def run() -> None:
        for given, weight, gradient, times in held:
            for _ in range(times):
                given @ weight.t()
                gradient @ weight
                gradient.t() @ given

    return run


def _shapes(
    training: TrainingSection, tokens: Tokens, samples: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yields (rows, inner width, outer width, how often) of the model's linear maps."""
    model, mae = training.model, training.mae
    width, inner, features = model.embed_dim, mlp_width(model), patch_features(model)
    outputs = 1 + deepstack_taps(model)
    seen = samples * tokens.visible
    units = seen // model.spatial_merge_size**2
    yield seen, features, width, 1
    yield seen, width, 3 * width, model.depth
    yield seen, width, width, model.depth
    yield seen, width, inner, model.depth
    yield seen, inner, width, model.depth
    yield units, 4 * width, 4 * width, outputs
    yield units, 4 * width, model.hidden_size, outputs
    yield units, model.hidden_size, 4 * mae.decoder_dim, outputs
    decoded, hidden = samples * tokens.total, samples * tokens.hidden
    yield decoded, mae.decoder_dim, 3 * mae.decoder_dim, mae.decoder_depth
    yield decoded, mae.decoder_dim, mae.decoder_dim, mae.decoder_depth
    yield decoded, mae.decoder_dim, 4 * mae.decoder_dim, mae.decoder_depth
    yield decoded, 4 * mae.decoder_dim, mae.decoder_dim, mae.decoder_depth
    yield hidden, mae.decoder_dim, features, 1


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
