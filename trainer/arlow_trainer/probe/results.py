"""Accuracies of a tower's features, compared with those of random weights. Pure functions."""

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
    """Labelled samples: features float32 [n, d] and classes int64 [n]."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracies of one method over seeds.

    Attributes:
        method: k-nearest neighbours or the linear probe.
        accuracies: of the tower's features, 0 to 1, one for each seed.
        baselines: of the same tower with random weights, on the same samples.
        neighbors: k of k-nearest neighbours; None for the linear probe.
    """

    method: Method
    accuracies: tuple[float, ...]
    baselines: tuple[float, ...]
    neighbors: int | None = None

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the seeds."""
        return fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over the seeds."""
        return stdev(self.accuracies)

    @property
    def baseline(self) -> float:
        """Mean accuracy of random weights over the seeds."""
        return fmean(self.baselines)

    @property
    def baseline_spread(self) -> float:
        """Standard deviation of the accuracy of random weights over the seeds."""
        return stdev(self.baselines)

    @property
    def margin(self) -> float:
        """Accuracy minus baseline."""
        return self.accuracy - self.baseline

    @property
    def margin_spread(self) -> float:
        """Standard deviation over the seeds of each seed's accuracy minus its baseline."""
        return stdev(a - b for a, b in zip(self.accuracies, self.baselines, strict=True))

    def to_record(
        self, step: int, data: str, samples: dict[str, int], now: datetime
    ) -> dict[str, Any]:
        """Returns the result as a record of `probe.jsonl`."""
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

    Each seed draws half of the training samples without replacement. The standard deviation of an
    accuracy over such halves estimates that of the accuracy with all samples (delete-half
    jackknife).

    Args:
        tower: training and test samples, with the tower's features.
        random: the same samples in the same order, with the features of random weights.
        classes: number of classes.
        neighbors: k of k-nearest neighbours.
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
    """Returns half of the indexes below `count`, at least one, drawn without replacement: int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[: max(1, count // 2)]


def accuracy(
    train: Labelled,
    test: Labelled,
    chosen: Tensor,
    classes: int,
    predict: Callable[[Tensor, Tensor, Tensor, int], Tensor],
) -> float:
    """Returns the share of test samples that are classified correctly.

    Features are standardised by the mean and deviation of the chosen training samples.

    Args:
        train, test: the samples.
        chosen: indexes of the training samples to use, int64.
        classes: number of classes.
        predict: called with training features, training labels, test features and `classes`;
            returns the predicted classes of the test samples.
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
    """Returns a mean and its standard deviation as text: 71.3 ± 0.4 %."""
    sign = "+" if signed else ""
    return f"{100 * mean:{sign}.1f} ± {100 * spread:.1f} %"


def table_rows(results: Iterable[ProbeResult]) -> list[tuple[str, str, str, str]]:
    """Returns each result as text: method, pretrained, random weights, margin."""
    return [
        (
            result.method,
            as_percent(result.accuracy, result.spread),
            as_percent(result.baseline, result.baseline_spread),
            as_percent(result.margin, result.margin_spread, signed=True),
        )
        for result in results
    ]
