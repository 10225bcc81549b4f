"""Linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ITERATIONS = 200
_HISTORY = 10


def linear_predict(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Classifies by multinomial logistic regression.

    Minimises the mean cross-entropy plus |W|^2 / 2n by L-BFGS. It is deterministic: the weights
    start at zero. The penalty is that of scikit-learn's `LogisticRegression` at its default C = 1.

    Args:
        train: standardised features of the training samples, float32 [n, d].
        labels: their classes, int64 [n] in [0, classes).
        test: features of the samples to classify, float32 [m, d].

    Returns:
        Predicted classes, int64 [m].
    """
    weight = train.new_zeros(classes, train.shape[1], requires_grad=True)
    bias = train.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        history_size=_HISTORY,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = F.cross_entropy(F.linear(train, weight, bias), labels)
        objective = error + weight.square().sum() / (2 * len(train))
        objective.backward()
        return objective

    optimizer.step(loss)
    with torch.no_grad():
        return F.linear(test, weight, bias).argmax(dim=1)
