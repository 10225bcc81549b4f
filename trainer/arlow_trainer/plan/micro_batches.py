"""Into which micro-batches a rank's share of a step is cut: a few sizes, the same for a whole run.

Each size of a micro-batch costs a device once what it then keeps: plans and kernels that are chosen
or compiled for it, and blocks of its allocator. How many samples of a modality a rank gets differs
from step to step, so a micro-batch may be computed larger than it is: filled up with samples that
do not count.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from arlow_trainer.config import Modality, TrainingSection
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image

MOST_SIZES = 4
"""Sizes of a modality in a run."""

# Launching a micro-batch's kernels takes as long as computing about 32 images, or a third of a
# largest micro-batch that is smaller: less is not faster. Above that, a quarter of it is added by
# each micro-batch. Fitted to 57, 168 and 322 ms for 24, 96 and 192 images on an H200.
_LAUNCHED_IMAGES, _LAUNCHED_SHARE, _EACH = 32, 1 / 3, 1 / 4
# What a sample costs where launching takes longer than computing it, as a share of what it costs
# elsewhere: it takes power all the same.
_POWER = 0.1
# How far the clips of a step are from their mean, in standard deviations, and how many numbers of
# them are looked at; other steps are cut well enough.
_DEVIATIONS, _LOOKED_AT = 4, 48
_CANDIDATES = 32
_ROUNDS = 2


@dataclass(frozen=True)
class Sizes:
    """The sizes that a modality's micro-batches are computed in.

    Attributes:
        sizes: ascending.
        launched: the samples that are computed in the time that launching a micro-batch takes.
    """

    sizes: tuple[int, ...]
    launched: float = 0.0

    def cut(self, count: int) -> list[int]:
        """Returns the samples of each micro-batch of `count` samples, the largest first.

        Each is to be computed in the least size that holds it (`holding`).
        """
        largest = self.sizes[-1]
        full = max(0, count // largest - 1)
        chosen, left = [largest] * full, count - full * largest
        while left > 0:
            chosen.append(self._covers[left][1])
            left -= chosen[-1]
        chosen.sort(reverse=True)
        # No size is chosen in vain, so only the last is not full.
        return [*chosen[:-1], count - sum(chosen[:-1])] if chosen else []

    def holding(self, samples: int) -> int:
        """Returns the least size that holds so many samples; their own number if none does."""
        return next((size for size in self.sizes if size >= samples), samples)

    def cost(self, count: int) -> float:
        """Returns what `count` samples cost, in samples of a micro-batch that fills the device."""
        largest = self.sizes[-1]
        full = max(0, count // largest - 1)
        return full * self._cost(largest) + self._covers[count - full * largest][0]

    def _cost(self, size: int) -> float:
        return max(size + _EACH * self.launched, self.launched) + _POWER * size

    @cached_property
    def _covers(self) -> list[tuple[float, int]]:
        """For 0 to twice the largest size: the least cost, and the first size of it."""
        found = [(0.0, 0)]
        for count in range(1, 2 * self.sizes[-1] + 1):
            found.append(
                min(
                    (self._cost(size) + found[max(0, count - size)][0], size) for size in self.sizes
                )
            )
        return found


def micro_batch_limits(training: TrainingSection, micro_batch: int) -> dict[Modality, int]:
    """Returns the most samples of a micro-batch, by modality.

    `micro_batch` counts images; clips fill it by their tokens, at least one.
    """
    return {"image": micro_batch, "video": max(1, micro_batch // clip_cost(training))}


def micro_batch_sizes(
    training: TrainingSection, global_batch_size: int, ranks: int, micro_batch: int
) -> dict[Modality, Sizes]:
    """Returns the sizes that micro-batches are computed in, at most four a modality.

    Those that waste the least on samples that do not count and on micro-batches too small to fill a
    device, over the steps that the run is likely to draw. They depend on nothing but the arguments.

    Args:
        training: says how likely a clip is, and what it costs.
        global_batch_size: samples of a step over all ranks.
        ranks: ranks that share a step.
        micro_batch: images of the largest micro-batch, as for `micro_batch_limits`.
    """
    return dict(
        _sizes(
            global_batch_size,
            training.data.video_probability,
            clip_cost(training),
            ranks,
            micro_batch,
            micro_batch_limits(training, micro_batch)["video"],
        )
    )


def drawn_sizes(
    training: TrainingSection, sizes: Mapping[Modality, Sizes]
) -> dict[Modality, tuple[int, ...]]:
    """Returns the sizes of the modalities that a run draws samples of."""
    probability = training.data.video_probability
    drawn = {"image": probability < 1, "video": probability > 0}
    return {modality: of.sizes for modality, of in sizes.items() if drawn[modality]}


def clip_cost(training: TrainingSection) -> int:
    """Returns what a clip costs in images, by their tokens."""
    return tokens_per_clip(training).total // tokens_per_image(training).total


def rank_shares(
    images: int, clips: int, cost_of_clip: int, ranks: int
) -> Iterator[tuple[int, int, int]]:
    """Yields what ranks get of a step, as (images, clips, number of ranks that get these).

    As `data.order.deal` deals: clips evenly, and images to whoever has the least.

    Args:
        images, clips: samples of the step.
        cost_of_clip: in images, more than one.
        ranks: how many share them.
    """
    each, more = divmod(clips, ranks)
    fewer = ranks - more
    # Ranks that have a clip less get its cost in images first, then all get the same.
    level = cost_of_clip if more else 0
    if images < fewer * level:
        share, extra = divmod(images, fewer)
        yield 0, each + 1, more
        yield share, each, fewer - extra
        yield share + 1, each, extra
        return
    share, extra = divmod(images - fewer * level, ranks)
    # The first ranks have the clip more, and get the last images.
    of_more = min(extra, more)
    yield share, each + 1, more - of_more
    yield share + 1, each + 1, of_more
    yield level + share, each, fewer - (extra - of_more)
    yield level + share + 1, each, extra - of_more


@lru_cache(8)
def _sizes(
    samples: int, probability: float, cost_of_clip: int, ranks: int, images: int, clips: int
) -> Mapping[Modality, Sizes]:
    found: dict[Modality, dict[int, float]] = {"image": defaultdict(float)}
    found["video"] = defaultdict(float)
    for drawn, weight in likely_clips(samples, probability):
        for image_share, clip_share, of in rank_shares(samples - drawn, drawn, cost_of_clip, ranks):
            found["image"][image_share] += weight * of
            found["video"][clip_share] += weight * of
    launched = min(_LAUNCHED_IMAGES, images * _LAUNCHED_SHARE)
    return {
        "image": _best(found["image"], images, launched),
        "video": _best(found["video"], clips, launched / cost_of_clip),
    }


def likely_clips(samples: int, probability: float) -> Iterator[tuple[int, float]]:
    """Yields the numbers of clips that a step may have, each with its likelihood.

    Binomial, as a normal distribution; the likelihoods are not normalised.
    """
    mean, deviation = samples * probability, math.sqrt(samples * probability * (1 - probability))
    first = max(0, math.floor(mean - _DEVIATIONS * deviation))
    last = min(samples, math.ceil(mean + _DEVIATIONS * deviation))
    for clips in range(first, last + 1, 1 + (last - first) // _LOOKED_AT):
        away = (clips - mean) / deviation if deviation else 0.0
        yield clips, math.exp(-away * away / 2)


def _best(counts: Mapping[int, float], limit: int, launched: float) -> Sizes:
    """The sizes for a modality of which a rank gets so many samples with such likelihood.

    One after another is added, then each is exchanged for a better one.
    """
    counts = {count: weight for count, weight in counts.items() if count and weight}
    most = min(limit, max(counts, default=1))
    if most <= MOST_SIZES:
        every = Sizes(tuple(range(1, most + 1)), launched)
        # Others would be compiled in vain.
        used = {every.holding(part) for count in counts for part in every.cut(count)}
        return Sizes(tuple(sorted({most, *used})), launched)
    spread = -(-most // _CANDIDATES)
    candidates = range(most, 0, -spread)

    def waste(sizes: Sizes) -> float:
        return sum(weight * sizes.cost(count) for count, weight in counts.items())

    best = Sizes((most,), launched)
    for _ in range(MOST_SIZES - 1):
        best = min((_with(best.sizes, size, launched) for size in candidates), key=waste)
    for _ in range(_ROUNDS):
        for kept in best.sizes:
            others = tuple(size for size in best.sizes if size != kept)
            best = min((best, *(_with(others, size, launched) for size in candidates)), key=waste)
    return best


def _with(sizes: tuple[int, ...], size: int, launched: float) -> Sizes:
    return Sizes(tuple(sorted({*sizes, size})), launched)
