"""k-nearest neighbours and the linear probe, compared with other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from arlow_trainer.probe.knn import knn_predict
from arlow_trainer.probe.linear import linear_predict


def blobs(count: int, classes: int, seed: int, apart: float = 1.0) -> tuple:
    """Noisy points around one centre a class: features [count, 12] and classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(7)) * apart
    labels = torch.randint(classes, (count,), generator=generator)
    return centres[labels] + torch.randn(count, 12, generator=generator), labels


def brute_force(train, labels, test, classes: int, neighbors: int) -> np.ndarray:
    """k-NN in float64, one sample after another."""
    train, labels, test = (each.numpy() for each in (train, labels, test))
    found = []
    for sample in test.astype(np.float64):
        cosines = train @ sample / np.linalg.norm(train, axis=1) / np.linalg.norm(sample)
        votes = np.zeros(classes)
        for near in np.argsort(-cosines)[:neighbors]:
            votes[labels[near]] += np.exp(cosines[near] / 0.07)
        found.append(votes.argmax())
    return np.array(found)


@pytest.mark.parametrize("neighbors", [1, 5, 20, 500])
def test_knn_is_the_brute_force(neighbors: int) -> None:
    train, labels = blobs(200, 5, seed=0)
    test, _ = blobs(1500, 5, seed=1)
    predicted = knn_predict(train, labels, test, 5, neighbors)
    assert np.array_equal(predicted.numpy(), brute_force(train, labels, test, 5, neighbors))


def test_near_neighbours_outweigh_many_far_ones() -> None:
    train = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 0, 0])
    assert knn_predict(train, labels, torch.tensor([[2.0, 0.0]]), 2, 4).tolist() == [1]


def test_the_linear_probe_separates_what_can_be_separated() -> None:
    train, labels = blobs(300, 4, seed=0, apart=6.0)
    test, truth = blobs(300, 4, seed=1, apart=6.0)
    assert torch.equal(linear_predict(train, labels, test, 4), truth)


def test_the_linear_probe_is_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, labels = blobs(300, 5, seed=2)
    test, _ = blobs(1000, 5, seed=3)
    model = linear_model.LogisticRegression(max_iter=1000, tol=1e-8).fit(train, labels)
    predicted = linear_predict(train, labels, test, 5).numpy()
    assert (predicted == model.predict(test)).mean() > 0.998


def test_both_are_the_same_every_time() -> None:
    train, labels = blobs(200, 5, seed=0)
    test, _ = blobs(100, 5, seed=1)
    for predict in (linear_predict, lambda *data: knn_predict(*data, neighbors=20)):
        assert torch.equal(predict(train, labels, test, 5), predict(train, labels, test, 5))
