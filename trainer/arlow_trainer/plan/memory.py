"""The memory model: what a device holds at the peak of a step, and the micro-batch that fits.

Counted from what autograd keeps for the backward pass and from DeepSpeed's buffers under ZeRO-2
(Rajbhandari et al., 2020, arXiv:1910.02054). Attention is taken to be fused (flash or
memory-efficient), so that no score matrix is kept. Compiled blocks keep as much for the backward
pass as plain ones, or less, and are counted as these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from arlow_trainer.config import ArlowPretrain, Precision, TrainingSection
from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.plan.hardware import GIB
from arlow_trainer.plan.parameters import (
    deepstack_taps,
    mlp_width,
    patch_features,
    total_parameters,
)
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image, tower_band

NUMBER_BYTES: dict[Precision, int] = {"fp16": 2, "bf16": 2, "fp32": 4}
FLOAT32 = 4
INT64 = 8

# What the allocator loses to fragments, and the driver and NCCL take, as a share of the device.
RESERVE = 0.1
# A CPU run shares the machine with its loaders, the page cache and its user.
CPU_SHARE = 0.5
# The engine's bound on DeepSpeed's reduction bucket, in elements: large enough for the bus, and
# small enough that most of a reduction is done when the backward pass beside it ends.
MAX_BUCKET = 100_000_000

ADDED_IN_HALF: dict[Precision, int] = {"fp16": 64, "bf16": 8}
"""Micro-batches whose gradients may add up in half precision; more add up in float32."""
# A step may have more of them than the average one.
_MOSTLY = 0.75

# Tensors of an activation's own width that it keeps beside its output, the next layer's input.
ACTIVATION_KEEPS = {
    "gelu_pytorch_tanh": 1,
    "gelu": 1,
    "quick_gelu": 2,
    "silu": 1,
    "relu": 0,
}


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device.

    Attributes:
        parameters: weights in the training precision.
        gradients: of all weights; they are kept whole until the step's one reduction, and summed in
            float32 where a step has many micro-batches.
        optimizer: this rank's shard of float32 weights and AdamW's two moments.
        buffers: the reduction bucket.
        activations: kept for the backward pass of one micro-batch, with its working set.
        update: this rank's shard of reduced gradients, and their float32 copy, in the update.
        graphs: kept for the graphs of small micro-batches (`graphs`), in all of a step.
    """

    parameters: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    update: int
    graphs: int = 0

    @property
    def total(self) -> int:
        """The peak: activations are gone when the optimiser runs."""
        held = self.parameters + self.gradients + self.optimizer + self.buffers + self.graphs
        return held + max(self.activations, self.update)


def bytes_per_device(
    run: ArlowPretrain, ranks: int, micro_batch: int, precision: Precision | None = None
) -> DeviceMemory:
    """Returns what a device holds at the peak of a step.

    Args:
        run: the run.
        ranks: devices that share the optimiser's state.
        micro_batch: images computed at once; clips count by their tokens, at least one.
        precision: what the device trains in, where it is not the run's own.
    """
    training = run.spec.training
    number = NUMBER_BYTES[precision or training.precision]
    parameters = total_parameters(training)
    shard = -(-parameters // ranks)
    sums = FLOAT32 if _needs_sums(run, ranks, micro_batch, precision) else 0
    return DeviceMemory(
        parameters=number * parameters,
        gradients=(number + sums) * parameters,
        optimizer=3 * FLOAT32 * shard,
        buffers=number * min(parameters, MAX_BUCKET),
        activations=max(
            activation_bytes(training, tokens, batch, number)
            for tokens, batch in _batches(training, micro_batch)
        ),
        update=(number + FLOAT32) * shard,
    )


def largest_micro_batch(
    run: ArlowPretrain,
    ranks: int,
    memory_bytes: int,
    precision: Precision | None = None,
    most: int | None = None,
) -> int:
    """Returns the largest micro-batch that fits a device, in images.

    Args:
        run: the run.
        ranks: devices that share the optimiser's state.
        memory_bytes: all of the device's memory; for a CPU rank, `cpu_rank_memory`.
        precision: what the device trains in, where it is not the run's own.
        most: the largest that is wanted; unset: a device's average share of a step.

    Raises:
        DeviceMemoryError: not even a micro-batch of one fits.
    """
    usable = int(memory_bytes * (1 - RESERVE))
    check_fits(run, ranks, usable, memory_bytes, precision)
    fits, most = 1, device_share(run, ranks) if most is None else most
    # Memory grows with the micro-batch, so halving the interval finds the last that fits; but below
    # this one, sums in float32 are needed.
    if (few := _fewest_without_sums(run, ranks, precision)) <= most:
        if bytes_per_device(run, ranks, few, precision).total <= usable:
            fits = few
        else:
            most = few - 1
    while fits < most:
        middle = (fits + most + 1) // 2
        if bytes_per_device(run, ranks, middle, precision).total <= usable:
            fits = middle
        else:
            most = middle - 1
    return fits


def check_fits(
    run: ArlowPretrain, ranks: int, usable: int, memory_bytes: int, precision: Precision | None
) -> None:
    """Checks that a micro-batch of one fits into the usable part of a device's memory.

    Raises DeviceMemoryError.
    """
    few = _fewest_without_sums(run, ranks, precision)
    least = min(
        (bytes_per_device(run, ranks, size, precision) for size in {1, few}),
        key=lambda memory: memory.total,
    )
    if least.total > usable:
        raise DeviceMemoryError(_does_not_fit(least, ranks, usable, memory_bytes))


def cpu_rank_memory(ram_bytes: int, ranks: int) -> int:
    """Returns the memory that a CPU rank may use of a machine's RAM that `ranks` ranks share."""
    return int(ram_bytes * CPU_SHARE / ranks)


def activation_bytes(
    training: TrainingSection, tokens: Tokens, batch: int, number_bytes: int
) -> int:
    """Returns the bytes of activations at the peak of a micro-batch of samples of one kind."""
    saved = saved_bytes(training, tokens, batch, number_bytes)
    return saved + batch * _working_bytes(training, tokens, number_bytes)


def saved_bytes(training: TrainingSection, tokens: Tokens, batch: int, number_bytes: int) -> int:
    """Returns the bytes that autograd keeps for the backward pass, parameters left out."""
    model, mae = training.model, training.mae
    # The decoder's distance bias is one table for all samples of the micro-batch.
    bias = number_bytes * mae.decoder_heads * tokens.total * _aligned(tokens.total)
    kept_block, kept_decoder_block = (
        _tower_block(training, tokens),
        _decoder_block(training, tokens),
    )
    if training.gradient_checkpointing:
        kept_block = Kept(numbers=tokens.visible * model.embed_dim)
        kept_decoder_block = Kept(numbers=tokens.total * mae.decoder_dim)
    sample = (
        _tower_ends(training, tokens).bytes(number_bytes)
        + model.depth * kept_block.bytes(number_bytes)
        + mae.decoder_depth * kept_decoder_block.bytes(number_bytes)
        + _decoder_ends(training, tokens).bytes(number_bytes)
    )
    return bias + batch * sample


@dataclass(frozen=True)
class Kept:
    """What a part keeps of one sample: numbers in the training precision, and bytes besides."""

    numbers: int
    fixed: int = 0

    def bytes(self, number_bytes: int) -> int:
        """Returns the bytes of both."""
        return self.numbers * number_bytes + self.fixed


def _tower_block(training: TrainingSection, tokens: Tokens) -> Kept:
    model, seen = training.model, tokens.visible
    inner = (1 + ACTIVATION_KEEPS[model.hidden_act]) * mlp_width(model)
    band = tower_band(training, tokens)
    # Rotation makes new q and k, while v keeps the whole of their projection. In a band k and v are
    # copies, and nothing keeps the projection.
    projected = 3 + 2 if band.span == seen else 1 + 2 * band.span / band.rows
    return _block(seen, model.embed_dim, inner, projected, model.num_heads)


def _decoder_block(training: TrainingSection, tokens: Tokens) -> Kept:
    mae = training.mae
    return _block(tokens.total, mae.decoder_dim, 2 * 4 * mae.decoder_dim, 3, mae.decoder_heads)


def _block(tokens: int, width: int, inner: int, projected: float, heads: int) -> Kept:
    """Both norms' inputs and outputs, q, k and v, attention's output, the MLP's inner tensors."""
    numbers = round(tokens * ((4 + projected + 1) * width + inner))
    return Kept(numbers, 2 * _norm_statistics(tokens) + FLOAT32 * heads * tokens)


def _tower_ends(training: TrainingSection, tokens: Tokens) -> Kept:
    """Patches, geometry, the last block's output, and the mergers with what the decoder reads."""
    model, seen = training.model, tokens.visible
    units, outputs = tokens.steps * tokens.visible_units, 1 + deepstack_taps(model)
    numbers = seen * patch_features(model) + seen * model.embed_dim
    if model.use_deformable_attention:
        numbers += seen * _aligned(tower_band(training, tokens).span)
    if model.use_progressive_patches:
        numbers += seen * tokens.visible_units + seen * model.embed_dim
    numbers += outputs * (3 * seen * model.embed_dim + 2 * units * model.hidden_size)
    rotary = 2 * FLOAT32 * seen * (model.embed_dim // model.num_heads)
    return Kept(numbers, rotary + outputs * 2 * _norm_statistics(units))


def _decoder_ends(training: TrainingSection, tokens: Tokens) -> Kept:
    """The last block's output, its hidden tokens before and after the norm, the predictions and
    what they were to be."""
    width, predicted = training.mae.decoder_dim, tokens.hidden * patch_features(training.model)
    indexes = INT64 * tokens.total
    numbers = (tokens.total + 2 * tokens.hidden) * width + predicted
    return Kept(numbers, indexes + _norm_statistics(tokens.hidden) + FLOAT32 * predicted)


def _working_bytes(training: TrainingSection, tokens: Tokens, number_bytes: int) -> int:
    """What one sample needs for a while beside that: its pixels, and a block's backward pass."""
    model, mae = training.model, training.mae
    # In whole numbers, and those to be predicted twice in float32.
    pixels = (2 * tokens.total + 2 * FLOAT32 * tokens.hidden) * patch_features(model)
    # Gradients of the inner tensors, and of q, k and v; in half precision with room to spare.
    backward = FLOAT32 * max(
        tokens.visible * (2 * mlp_width(model) + 6 * model.embed_dim),
        tokens.total * (2 * 4 + 6) * mae.decoder_dim,
    )
    if training.gradient_checkpointing:
        recomputed = (_tower_block(training, tokens), _decoder_block(training, tokens))
        backward += max(kept.bytes(number_bytes) for kept in recomputed)
    return pixels + backward


def _does_not_fit(least: DeviceMemory, ranks: int, usable: int, memory_bytes: int) -> str:
    each = f"each of {ranks} devices" if ranks > 1 else "the only device"
    remedies = ["use more devices, which share the optimiser's state", "choose a smaller model"]
    if least.activations > least.update:
        remedies.insert(1, "set spec.training.gradientCheckpointing=true")
    return (
        f"the run needs {least.total / GIB:.1f} GiB on {each} even with one sample at a time, and "
        f"{usable / GIB:.1f} GiB of its {memory_bytes / GIB:.1f} GiB are usable; "
        + ", or ".join(remedies)
    )


def _batches(training: TrainingSection, micro_batch: int) -> list[tuple[Tokens, int]]:
    """The two kinds of micro-batches that the data may deal, with their samples."""
    image, clip = tokens_per_image(training), tokens_per_clip(training)
    kinds = []
    if training.data.video_probability < 1:
        kinds.append((image, micro_batch))
    if training.data.video_probability > 0:
        kinds.append((clip, max(1, micro_batch * image.total // clip.total)))
    return kinds


def _needs_sums(
    run: ArlowPretrain, ranks: int, micro_batch: int, precision: Precision | None
) -> bool:
    """Whether gradients of an average step, and a few more, are summed in float32."""
    training = run.spec.training
    at_once = ADDED_IN_HALF.get(precision or training.precision)
    if at_once is None:
        return False
    clips = run.spec.global_batch_size * training.data.video_probability / ranks
    images = run.spec.global_batch_size / ranks - clips
    ratio = tokens_per_clip(training).total // tokens_per_image(training).total
    parts = images / micro_batch + clips / max(1, micro_batch // ratio)
    return parts > _MOSTLY * at_once


def _fewest_without_sums(run: ArlowPretrain, ranks: int, precision: Precision | None) -> int:
    size = 1
    while _needs_sums(run, ranks, size, precision):
        size += 1
    return size


def device_share(run: ArlowPretrain, ranks: int) -> int:
    """Returns the images of a device in an average step, clips counted by their tokens."""
    training = run.spec.training
    probability = training.data.video_probability
    clip = tokens_per_clip(training).total / tokens_per_image(training).total
    mean = run.spec.global_batch_size * (1 - probability + probability * clip)
    return max(1, math.ceil(mean / ranks))


def _norm_statistics(rows: int) -> int:
    return 2 * FLOAT32 * rows


def _aligned(length: int) -> int:
    """Rows of a bias are padded for the memory-efficient kernel."""
    return -(-length // 8) * 8
