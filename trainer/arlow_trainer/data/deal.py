"""Dealing a step's samples to ranks and micro-batches by modality and cost."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence

from .choice import MODALITIES, Choice, Modality

MicroBatchPlan = tuple[Choice, ...]


def deal(
    choices: Sequence[Choice], costs: Mapping[Modality, int], ranks: int, micro_batch: int
) -> list[list[MicroBatchPlan]]:
    """Returns every rank's micro-batches, each of one modality.

    `costs` are a sample's tokens. Samples go, costliest first, to the rank with the least so far
    (Graham, 1969), so two ranks differ by at most one sample's cost. `micro_batch` counts images;
    clips fill a micro-batch by their tokens, at least one. A rank's micro-batches of a modality
    differ by at most one sample. With more ranks than samples, some ranks get none.
    """
    hands: list[list[Choice]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for choice in sorted(choices, key=lambda c: (-costs[c.modality], c.index)):
        load, rank = heapq.heappop(loads)
        hands[rank].append(choice)
        heapq.heappush(loads, (load + costs[choice.modality], rank))
    return [
        [
            plan
            for modality in MODALITIES
            for plan in _cut(
                [choice for choice in hand if choice.modality == modality],
                max(1, micro_batch * costs["image"] // costs[modality]),
            )
        ]
        for hand in hands
    ]


def _cut(hand: Sequence[Choice], most: int) -> list[MicroBatchPlan]:
    """Cuts samples into the fewest even runs of at most `most`."""
    count = -(-len(hand) // most)
    edges = [part * len(hand) // count for part in range(count + 1)] if count else []
    return [tuple(hand[a:b]) for a, b in itertools.pairwise(edges)]
