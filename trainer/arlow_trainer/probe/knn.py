"""k-nearest neighbours by cosine similarity, with DINO's weights (Caron et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
_ROWS = 1024


def knn_predict(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, neighbors: int
) -> Tensor:
    """Classifies by a vote of the nearest training samples.

    Each of the `neighbors` nearest by cosine similarity s (all, where there are fewer) votes for
    its class with weight exp(s / 0.07).

    Args:
        train: features of the training samples, float32 [n, d].
        labels: their classes, int64 [n] in [0, classes).
        test: features of the samples to classify, float32 [m, d].

    Returns:
        Predicted classes, int64 [m].
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    predicted = []
    for rows in test.split(_ROWS):
        similarity, nearest = (rows @ train.T).topk(min(neighbors, len(train)), dim=1)
        votes = torch.zeros(len(rows), classes, device=rows.device)
        votes.scatter_add_(1, labels[nearest], (similarity / TEMPERATURE).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)
