"""Accuracies of a tower's features beside those of random weights. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import fmean, stdev
from typing import Any, Literal

import torch
from torch import Tensor

from arlow_trainer.probe.knn import knn_predict
from arlow_trainer.probe.linear import linear_predict

Method = Literal["knn", "linear"]

SEEDS = 5
_MIN_DEVIATION = 1e-6


@dataclass(frozen=True)
class Labelled:
    """Samples as features float32 [n, d] and classes int64 [n]."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracies (0 to 1) of one method, one for each seed, of the tower's features and of
    the same tower's with random weights, on the same samples. `neighbors` is the k of k-NN."""

    method: Method
    accuracies: tuple[float, ...]
    baselines: tuple[float, ...]
    neighbors: int | None = None

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds."""
        return stdev(self.accuracies)

    @property
    def baseline(self) -> float:
        """Mean over the seeds, with random weights."""
        return fmean(self.baselines)

    @property
    def baseline_spread(self) -> float:
        """Standard deviation over the seeds, with random weights."""
        return stdev(self.baselines)

    @property
    def margin(self) -> float:
        """What the tower's features are better by."""
        return self.accuracy - self.baseline

    @property
    def margin_spread(self) -> float:
        """Standard deviation of the margin over the seeds, each seed's own baseline taken off."""
        return stdev(a - b for a, b in zip(self.accuracies, self.baselines, strict=True))

    def to_record(
        self, step: int, data: str, samples: dict[str, int], now: datetime
    ) -> dict[str, Any]:
        """Returns the result as a line of `probe.jsonl`."""
        return {
            "time": now.isoformat(timespec="milliseconds"),
            "step": step,
            "method": self.method,
            "neighbors": self.neighbors,
            "accuracy": self.accuracy,
            "spread": self.spread,
            "baseline": self.baseline,
            "baseline_spread": self.baseline_spread,
            "data": data,
            "samples": samples,
        }


def compare(
    tower: tuple[Labelled, Labelled],
    random: tuple[Labelled, Labelled],
    classes: int,
    neighbors: int,
) -> list[ProbeResult]:
    """Returns the results of both methods.

    Every seed draws half of the training samples without replacement: the deviation of a figure
    over such halves is about that of the figure from all samples (delete-half jackknife).

    Args:
        tower, random: training and test samples, as the tower and as the same tower with random
            weights sees them, in the same order.
        classes: how many classes there are.
        neighbors: the k of k nearest neighbours.
    """
    methods: dict[Method, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
        "knn": partial(knn_predict, neighbors=neighbors),
        "linear": linear_predict,
    }
    halves = [half(len(tower[0]), seed) for seed in range(SEEDS)]
    return [
        ProbeResult(
            method,
            tuple(accuracy(*tower, chosen, classes, predict) for chosen in halves),
            tuple(accuracy(*random, chosen, classes, predict) for chosen in halves),
            neighbors if method == "knn" else None,
        )
        for method, predict in methods.items()
    ]


def half(count: int, seed: int) -> Tensor:
    """Returns half of `count` positions, at least one, drawn without replacement: int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[: max(1, count // 2)]


def accuracy(
    train: Labelled,
    test: Labelled,
    chosen: Tensor,
    classes: int,
    predict: Callable[[Tensor, Tensor, Tensor, int], Tensor],
) -> float:
    """Returns the share of test samples that `predict` tells right from the chosen training ones.

    Features are standardised by the chosen samples' mean and deviation.
    """
    chosen = chosen.to(train.labels.device)
    features, labels = train.features[chosen], train.labels[chosen]
    mean = features.mean(dim=0)
    deviation = features.std(dim=0, correction=0).clamp(min=_MIN_DEVIATION)
    predicted = predict(
        (features - mean) / deviation, labels, (test.features - mean) / deviation, classes
    )
    return float((predicted == test.labels).double().mean())


def as_percent(mean: float, spread: float, signed: bool = False) -> str:
    """Returns a figure and its deviation as people read them: 71.3 ± 0.4 %."""
    sign = "+" if signed else ""
    return f"{100 * mean:{sign}.1f} ± {100 * spread:.1f} %"


def table_rows(results: Iterable[ProbeResult]) -> list[tuple[str, str, str, str]]:
    """Returns method, pretrained, random weights and margin of every result, as text."""
    return [
        (
            result.method,
            as_percent(result.accuracy, result.spread),
            as_percent(result.baseline, result.baseline_spread),
            as_percent(result.margin, result.margin_spread, signed=True),
        )
        for result in results
    ]
