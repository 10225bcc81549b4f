"""Which sample comes when, and which rank and micro-batch gets it: pure functions of the seed.

The shuffle is a keyed bijection, so the whole state of the data is one integer, the global sample
index.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from arlow_trainer.config import Modality
from arlow_trainer.plan.micro_batches import Sizes

MODALITIES: tuple[Modality, ...] = ("image", "video")

# Shuffle

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
# Halves of three bits or fewer mix slowly: with six rounds some rows came twice as often at some
# positions.
_ROUNDS, _ROUNDS_BELOW_7_BITS = 6, 16


class Draw(IntEnum):
    """What a hash is drawn for: one number each, so that no two choices share their bits.

    The numbers are part of a run's identity: changing one changes every run.
    """

    MODALITY = 1
    PASS = 2
    VIEW = 3
    REPLACEMENT = 4
    MASK = 5
    CLIP = 6
    AREA = 7
    RATIO = 8
    LEFT = 9
    TOP = 10
    FLIP = 11


def hash64(*numbers: int) -> int:
    """Returns 64 well-mixed bits of a sequence of integers (each taken modulo 2^64).

    Chained finalisers of SplitMix64 (Steele, Lea and Flood, 2014): the same on every machine,
    process and version, unlike `hash`.
    """
    state = 0
    for number in numbers:
        z = (state + (number & _MASK64) + _GOLDEN) & _MASK64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
        state = z ^ (z >> 31)
    return state


def uniform(*numbers: int) -> float:
    """Returns a float in [0, 1), uniform over the hash of the numbers."""
    return (hash64(*numbers) >> 11) * 2.0**-53


def permute(index: int, size: int, key: int) -> int:
    """Returns where a keyed shuffle of [0, size) puts `index`: a bijection, in O(1) memory.

    A Feistel network over the smallest power of two that holds `size`; a result outside is sent
    through it again until it falls inside (cycle walking: Black and Rogaway, 2002), fewer than two
    passes on average. Raises ValueError when index is not in [0, size).
    """
    if not 0 <= index < size:
        raise ValueError(f"index {index} is not in [0, {size})")
    bits = max(2, (size - 1).bit_length())
    low, high = bits // 2, bits - bits // 2
    position = _feistel(index, low, high, key)
    while position >= size:
        position = _feistel(position, low, high, key)
    return position


def _feistel(value: int, low: int, high: int, key: int) -> int:
    """One pass through the network; an even number of rounds restores the halves' widths."""
    left, right = value >> low, value & ((1 << low) - 1)
    left_bits, right_bits = high, low
    rounds = _ROUNDS_BELOW_7_BITS if low + high < 7 else _ROUNDS
    for round_ in range(rounds):
        mixed = left ^ (hash64(key ^ (round_ << 56), right) & ((1 << left_bits) - 1))
        left, right = right, mixed
        left_bits, right_bits = right_bits, left_bits
    return (left << low) | right


# Choice


@dataclass(frozen=True)
class Choice:
    """One sample of the run."""

    index: int
    """Global sample index: step x global batch size + position in the step."""
    modality: Modality
    position: int
    """Row in the modality's set."""
    seed: int
    """64 bits that crop, clip and flip are drawn from."""

    @property
    def mask_seed(self) -> int:
        """64 bits that the mask is drawn from."""
        return hash64(self.seed, Draw.MASK)


def modality_at(seed: int, index: int, video_probability: float) -> Modality:
    """Returns the modality of a global sample index."""
    return "video" if uniform(seed, index, Draw.MODALITY) < video_probability else "image"


def choose(
    seed: int,
    index: int,
    sizes: Mapping[Modality, int],
    video_probability: float,
    attempt: int = 0,
) -> Choice:
    """Returns the sample of a global index.

    The modality is drawn with `video_probability`; the set of that modality, with `sizes` rows, is
    shuffled anew every `size` indexes. `attempt` k > 0 is the k-th replacement of a broken file:
    the same modality and seed at another position, all different for k < size.
    """
    modality = modality_at(seed, index, video_probability)
    size = sizes[modality]
    pass_, offset = divmod(index, size)
    position = permute(offset, size, hash64(seed, Draw.PASS, modality == "video", pass_))
    if attempt > 0 and size > 1:
        key = hash64(seed, index, Draw.REPLACEMENT)
        position = (position + 1 + permute((attempt - 1) % (size - 1), size - 1, key)) % size
    return Choice(index, modality, position, hash64(seed, index, Draw.VIEW))


# Deal

MicroBatchPlan = tuple[Choice, ...]
"""Samples of one modality that a rank computes at once."""


def deal(
    choices: Sequence[Choice],
    costs: Mapping[Modality, int],
    ranks: int,
    sizes: Mapping[Modality, Sizes],
) -> list[list[MicroBatchPlan]]:
    """Returns every rank's micro-batches, each of one modality.

    `costs` are a sample's tokens. Samples go, costliest first, to the rank with the least so far
    (Graham, 1969), so two ranks differ by at most one sample's cost. `sizes` are those that
    micro-batches are computed in (`plan.micro_batch_sizes`). With more ranks than samples, some
    ranks get none.
    """
    shares: list[list[Choice]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for choice in sorted(choices, key=lambda c: (-costs[c.modality], c.index)):
        load, rank = heapq.heappop(loads)
        shares[rank].append(choice)
        heapq.heappush(loads, (load + costs[choice.modality], rank))
    return [
        [
            plan
            for modality in MODALITIES
            for plan in _cut(
                [choice for choice in share if choice.modality == modality], sizes[modality]
            )
        ]
        for share in shares
    ]


def _cut(choices: Sequence[Choice], sizes: Sizes) -> Iterator[MicroBatchPlan]:
    rest = iter(choices)
    for size in sizes.cut(len(choices)):
        yield tuple(itertools.islice(rest, size))
