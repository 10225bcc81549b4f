"""How long a step takes on a GPU of the hardware table, by arithmetic.

What was measured, on one H200 with the full model (fp16): 96 and 192 images forward and backward in
168 and 322 ms, 8 and 24 clips in 125 and 357 ms; the update in 0.14 to 0.18 s; launching a
micro-batch's kernels in 57 ms or more. The constants are fitted to these; for other chips, the
hardware table says how products and attention scale.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from arlow_trainer.config import ArlowPretrain, Modality, TrainingSection
from arlow_trainer.plan.attention import micro_batch_kernel
from arlow_trainer.plan.flops import FORWARD_AND_BACKWARD, attention_flops, forward_flops
from arlow_trainer.plan.hardware import Hardware
from arlow_trainer.plan.memory import MAX_BUCKET, NUMBER_BYTES, saved_bytes
from arlow_trainer.plan.micro_batches import Sizes, clip_cost, likely_clips, rank_shares
from arlow_trainer.plan.parameters import total_parameters
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image

# Of the data sheet's bandwidth, what elementwise kernels reach.
_BANDWIDTH_SHARE = 0.5
# How often these kernels read or write each byte that is kept for the backward pass.
_TIMES_TOUCHED = 7
# Kernels of a block, forward and backward, are launched in a millisecond.
_LAUNCH_BLOCK_S = 1.0e-3
# The update launches about 15 kernels for each of a rank's tensors, 12 of which make a block.
_LAUNCH_TENSOR_S = 1.5e-4
_TENSORS_A_BLOCK, _OTHER_TENSORS = 12, 48
# Gradients in both precisions, masters, two moments and weights, read or written once or twice.
_UPDATE_BYTES = 60
# Of a micro-batch's seconds; forward takes the rest.
_BACKWARD = 2 / 3
# What recomputing blocks adds to forward and backward.
_RECOMPUTED = 4 / 3


@dataclass(frozen=True)
class StepTime:
    """Seconds of an average step on the rank that takes longest.

    Attributes:
        images, clips: forward and backward of their micro-batches.
        reduce: communication of the gradients, beyond the backward pass beside which it runs.
        hidden: the rest of that communication, which takes no time of its own.
        update: the optimiser's.
        gather: communication of the new weights.
    """

    images: float
    clips: float
    reduce: float
    update: float
    gather: float
    hidden: float

    @property
    def total(self) -> float:
        """All but what is hidden: one after another."""
        return self.images + self.clips + self.reduce + self.update + self.gather


def step_time(
    run: ArlowPretrain,
    ranks: int,
    hardware: Hardware,
    sizes: Mapping[Modality, Sizes],
    graphed: Mapping[Modality, Collection[int]],
) -> StepTime:
    """Returns the seconds of an average step.

    Args:
        run: the run.
        ranks: devices, all of one node.
        hardware: the device.
        sizes: what micro-batches are computed in (`micro_batch_sizes`).
        graphed: those of them that have graphs (`graphed_sizes`).
    """
    training, samples = run.spec.training, run.spec.global_batch_size
    tokens: dict[Modality, Tokens] = {
        "image": tokens_per_image(training),
        "video": tokens_per_clip(training),
    }
    launched, computed = (
        {
            modality: {
                size: of(training, tokens[modality], hardware, size)
                for size in sizes[modality].sizes
            }
            for modality in tokens
        }
        for of in (micro_batch_seconds, device_seconds)
    )

    def of_share(image_share: int, clip_share: int) -> tuple[list[float], list[float]]:
        shares: dict[Modality, int] = {"image": image_share, "video": clip_share}
        parts = [
            (modality, sizes[modality].holding(part))
            for modality, count in shares.items()
            for part in sizes[modality].cut(count)
        ]
        found: dict[Modality, list[float]] = {"image": [], "video": []}
        replayed = 0.0
        for number, (modality, size) in enumerate(parts, 1):
            plain, bare = launched[modality][size], computed[modality][size]
            # The last of several ranks is reduced as it goes, and has no graph.
            if size in graphed[modality] and (number < len(parts) or ranks == 1):
                replayed += bare
                found[modality].append(bare)
            else:
                # It is launched while the device does the graphs before it.
                found[modality].append(max(bare, plain - replayed))
                replayed = 0.0
        return found["image"], found["video"]

    images = clips = reduce = weights = 0.0
    moved = communicated_bytes(training, ranks) / hardware.link.bytes_per_second
    buckets = total_parameters(training) / MAX_BUCKET
    for drawn, weight in likely_clips(samples, training.data.video_probability):
        shares = rank_shares(samples - drawn, drawn, clip_cost(training), ranks)
        slowest = max(
            (of_share(image_share, clip_share) for image_share, clip_share, of in shares if of),
            key=lambda parts: sum(map(sum, parts)),
        )
        images, clips = images + weight * sum(slowest[0]), clips + weight * sum(slowest[1])
        # Clips are dealt last.
        last = (slowest[1] or slowest[0])[-1] * _BACKWARD
        reduce += weight * reduction_beyond(last, moved, buckets)
        weights += weight
    return StepTime(
        images=images / weights,
        clips=clips / weights,
        reduce=reduce / weights,
        update=_update_seconds(training, ranks, hardware),
        gather=moved,
        hidden=moved - reduce / weights,
    )


def reduction_beyond(backward: float, reduction: float, buckets: float) -> float:
    """Returns the seconds that a reduction lasts beyond the backward pass beside which it runs.

    Each bucket is reduced when the pass has filled it and the one before is reduced.

    Args:
        backward: seconds of the pass.
        reduction: seconds of reducing all gradients.
        buckets: that they fill; the last need not be full.
    """
    if not reduction:
        return 0.0
    done = filled = 0.0
    while filled < buckets:
        bucket = min(1.0, buckets - filled)
        filled += bucket
        done = max(done, backward * filled / buckets) + reduction * bucket / buckets
    return done - backward


def communicated_bytes(training: TrainingSection, ranks: int) -> int:
    """Returns the bytes that each device sends to reduce a step's gradients.

    As many again to gather the new weights.
    """
    whole = NUMBER_BYTES[training.precision] * total_parameters(training)
    return whole * (ranks - 1) // ranks


def micro_batch_seconds(
    training: TrainingSection, tokens: Tokens, hardware: Hardware, samples: int
) -> float:
    """Returns the seconds of a micro-batch of samples of one kind, forward and backward, where the
    host launches each kernel."""
    launch = launch_seconds(training)
    again = _RECOMPUTED if training.gradient_checkpointing else 1
    # Launching the first kernels is not hidden.
    return max(
        again * launch, again * launch / 4 + device_seconds(training, tokens, hardware, samples)
    )


def launch_seconds(training: TrainingSection) -> float:
    """Returns the seconds for which a host launches the kernels of a micro-batch, whatever its
    size, without those of recomputed activations."""
    return _LAUNCH_BLOCK_S * (training.model.depth + training.mae.decoder_depth)


def device_seconds(
    training: TrainingSection, tokens: Tokens, hardware: Hardware, samples: int
) -> float:
    """Returns the seconds of a micro-batch on a device that never waits for its host."""
    chip, precision = hardware.chip, training.precision
    kernel = micro_batch_kernel(training, tokens, chip.compute_capability)
    attention = attention_flops(training, tokens)
    products = forward_flops(training, tokens).total - attention
    attention_rate = chip.attention_flops[kernel]
    if precision == "fp32":
        attention_rate = min(attention_rate, chip.peak_flops[precision])
    kept = training.model_copy(update={"gradient_checkpointing": False})
    touched = _TIMES_TOUCHED * saved_bytes(kept, tokens, 1, NUMBER_BYTES[precision])
    sample = (
        FORWARD_AND_BACKWARD * products / (chip.peak_flops[precision] * chip.product_share)
        + FORWARD_AND_BACKWARD * attention / attention_rate
        + touched / (hardware.memory_bandwidth * _BANDWIDTH_SHARE)
    )
    again = _RECOMPUTED if training.gradient_checkpointing else 1
    return again * samples * sample


def _update_seconds(training: TrainingSection, ranks: int, hardware: Hardware) -> float:
    blocks = training.model.depth + training.mae.decoder_depth
    tensors = _TENSORS_A_BLOCK * blocks + _OTHER_TENSORS
    touched = _UPDATE_BYTES * total_parameters(training)
    bandwidth = hardware.memory_bandwidth * _BANDWIDTH_SHARE
    return (_LAUNCH_TENSOR_S * tensors + touched / bandwidth) / ranks
