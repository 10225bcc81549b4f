"""Tables that depend on a grid alone: computed at its first use, kept for every later micro-batch.

They are no module's buffers: a checkpoint never holds them, and a copied, converted or moved module
finds those of its own dtype and device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")

# A run has two grids; the rest is for what else a process looks at, at other sizes. The least
# recently used is dropped.
KEPT = 4


def kept(build: Callable[P, T]) -> Callable[P, T]:
    """Keeps what a function of hashable arguments returned for its last `KEPT` arguments.

    Arguments must name all that the tables depend on, device and dtype included. What is returned
    is shared: do not change it in place.
    """

    @functools.lru_cache(KEPT)
    @functools.wraps(build)
    def once(*args: P.args, **kwargs: P.kwargs) -> T:
        # Autograd refuses tensors made in inference mode, and training may be next to use them.
        with torch.inference_mode(False):
            return build(*args, **kwargs)

    return cast(Callable[P, T], once)
