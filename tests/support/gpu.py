"""The mark of tests that need a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch

T = TypeVar("T", bound=Callable[..., object])

_ABSENT = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: run make test-gpu on a machine with one"
)


def needs_gpu(test: T) -> T:
    """Marks a test for `make test-gpu`; elsewhere it is skipped, and says so."""
    marked: T = pytest.mark.gpu(_ABSENT(test))
    return marked
