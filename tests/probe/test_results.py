"""Accuracies over seeds, compared with those of random weights."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from arlow_trainer.probe.results import (
    SEEDS,
    Labelled,
    ProbeResult,
    accuracy,
    compare,
    half,
    table_rows,
)
from arlow_trainer.probe.stored import Probe, read_probes

RESULT = ProbeResult("knn", (0.70, 0.72, 0.74, 0.70, 0.74), (0.60, 0.62, 0.64, 0.58, 0.66), 20)


def test_mean_and_deviation_over_the_seeds() -> None:
    ours, theirs = np.array(RESULT.accuracies), np.array(RESULT.baselines)
    assert RESULT.accuracy == pytest.approx(ours.mean())
    assert RESULT.spread == pytest.approx(ours.std(ddof=1))
    assert RESULT.baseline == pytest.approx(theirs.mean())
    assert RESULT.baseline_spread == pytest.approx(theirs.std(ddof=1))
    assert RESULT.margin == pytest.approx(0.10)
    assert RESULT.margin_spread == pytest.approx((ours - theirs).std(ddof=1))


def test_the_table() -> None:
    assert table_rows([RESULT]) == [("knn", "72.0 ± 2.0 %", "62.0 ± 3.2 %", "+10.0 ± 1.4 %")]


def test_the_report_reads_the_record() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    record = RESULT.to_record(300, "./data", {"train": 5, "test": 4}, now)
    assert record["time"] == "2026-01-02T00:00:00.000+00:00"
    assert record["samples"] == {"train": 5, "test": 4}
    read = read_probes([json.dumps(record).encode()])
    expected = Probe("./data", "knn", 300, RESULT.accuracy, RESULT.spread, RESULT.baseline, 20)
    assert read == [expected]


def test_every_seed_draws_another_half() -> None:
    halves = [half(101, seed).tolist() for seed in range(SEEDS)]
    for drawn in halves:
        assert len(set(drawn)) == 50
        assert set(drawn) <= set(range(101))
    assert len({tuple(sorted(drawn)) for drawn in halves}) == SEEDS
    assert halves == [half(101, seed).tolist() for seed in range(SEEDS)]
    assert half(1, 0).tolist() == [0]


def test_features_are_standardised_by_the_chosen_training_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    train = Labelled(torch.randn(40, 3, generator=generator) * 5 + 9, torch.arange(40) % 2)
    test = Labelled(torch.randn(10, 3, generator=generator) * 5 + 9, torch.arange(10) % 2)
    chosen = torch.arange(20)
    seen = []

    def predict(features, labels, tested, classes):
        seen.append((features, labels, tested, classes))
        return torch.zeros(len(tested), dtype=torch.int64)

    assert accuracy(train, test, chosen, 2, predict) == 0.5
    features, labels, tested, classes = seen[0]
    assert torch.allclose(features.mean(dim=0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(features.std(dim=0, correction=0), torch.ones(3))
    first = train.features[:20]
    expected = (test.features - first.mean(dim=0)) / first.std(dim=0, correction=0)
    assert torch.allclose(tested, expected)
    assert torch.equal(labels, train.labels[:20])
    assert classes == 2


def test_better_features_have_a_margin_and_equal_ones_none() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (400,), generator=generator)
    noise = torch.randn(400, 8, generator=generator)
    informative = noise + 4 * torch.eye(3, 8)[labels]
    # A feature that never changes must not become a division by zero.
    informative = torch.cat([informative, torch.ones(400, 1)], dim=1)
    good = Labelled(informative[:300], labels[:300]), Labelled(informative[300:], labels[300:])
    bad = Labelled(noise[:300], labels[:300]), Labelled(noise[300:], labels[300:])
    for result in compare(good, bad, 3, neighbors=20):
        assert result.accuracy > 0.9
        assert result.baseline < 0.5
        assert result.margin > 5 * result.margin_spread
        assert len(result.accuracies) == len(result.baselines) == SEEDS
    for result in compare(good, good, 3, neighbors=20):
        assert result.margin == result.margin_spread == 0
        assert result.neighbors == (20 if result.method == "knn" else None)
