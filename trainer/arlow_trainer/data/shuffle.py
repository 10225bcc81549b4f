"""A shuffle without memory: keyed bijections of [0, size), and the hash that keys them."""

from __future__ import annotations

from enum import IntEnum

MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
# Halves of three bits or fewer mix slowly: six rounds put some rows twice as often in some places.
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


def hash64(*words: int) -> int:
    """Returns 64 well-mixed bits of a sequence of integers (each taken modulo 2^64).

    Chained finalisers of SplitMix64 (Steele, Lea and Flood, 2014): the same on every machine,
    process and version, unlike `hash`.
    """
    state = 0
    for word in words:
        z = (state + (word & MASK64) + _GOLDEN) & MASK64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
        state = z ^ (z >> 31)
    return state


def uniform(*words: int) -> float:
    """Returns a float in [0, 1), uniform over the hash of the words."""
    return (hash64(*words) >> 11) * 2.0**-53


def permute(index: int, size: int, key: int) -> int:
    """Returns where a keyed shuffle of [0, size) puts `index`: a bijection, in O(1) memory.

    A Feistel network over the smallest power of two that holds `size`; what falls outside is sent
    through it again until it falls inside (cycle walking: Black and Rogaway, 2002), fewer than two
    trips on average. Raises ValueError when index is not in [0, size).
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
    """One trip through the network; an even number of rounds restores the halves' widths."""
    left, right = value >> low, value & ((1 << low) - 1)
    left_bits, right_bits = high, low
    rounds = _ROUNDS_BELOW_7_BITS if low + high < 7 else _ROUNDS
    for round_ in range(rounds):
        mixed = left ^ (hash64(key ^ (round_ << 56), right) & ((1 << left_bits) - 1))
        left, right = right, mixed
        left_bits, right_bits = right_bits, left_bits
    return (left << low) | right
