"""The blocks of tower and decoder, compiled: one compilation of each kind for each shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from os import environ
from typing import Any

import torch
from torch import nn

from arlow_trainer.config import Compile, Modality
from arlow_trainer.mae import MaskedAutoencoder
from arlow_trainer.plan.attention import Kernel
from arlow_trainer.plan.compilation import plain_because

MOST_SHAPES = 64
"""Compilations of a kind of block, after which dynamo refuses more: four sizes of each modality,
and what halving them for want of memory makes of them."""
_MOST_TEXT = 300
_COMPILERS = ("clang", "gcc", "cc")


class Blocks:
    """The blocks of an autoencoder, which run compiled within `compiled`, and plain elsewhere.

    All blocks of a kind share one compiled function, so that a shape is compiled once whatever the
    depth. Outside `compiled`, hooks are called and shapes are free. The module stays as it is: its
    names, its copies and its recomputation of activations.
    """

    def __init__(
        self,
        module: MaskedAutoencoder,
        choice: Compile,
        device: torch.device,
        kernels: Mapping[Modality, Kernel],
    ) -> None:
        """Prepares the blocks; nothing is compiled before a shape's first pass.

        Args:
            module: the autoencoder.
            choice: the run's `training.compile`.
            device: that it is on.
            kernels: of attention, which are compiled in.
        """
        self.plain_because: str | None
        """Why the blocks run plain; None where they are compiled."""
        self.warning: str | None
        """What is amiss where they were to be compiled and cannot be."""
        self.plain_because, self.warning = why_plain(choice, device)
        self._on = False
        self._passed: set[Hashable] = set()
        if self.plain_because is not None:
            return
        # A cached graph names its kernel of attention, and its key would not.
        torch.compiler.config.cache_key_tag = f"attention by {sorted(kernels.items())}"
        # Here: the import takes a second, and most tests and commands compile nothing.
        import torch._dynamo.config as dynamo

        dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_SHAPES)
        functions: dict[type[nn.Module], Callable[..., Any]] = {}
        for block in [*module.tower.blocks, *module.decoder.blocks]:
            kind = type(block)
            if kind not in functions:
                # Sizes are few, and static ones need less memory.
                functions[kind] = torch.compile(kind.forward, fullgraph=True, dynamic=False)
            # Where `nn.Module.compile` keeps its function, too: no copy of the module has it.
            block._compiled_call_impl = partial(self._call, functions[kind], block)

    def _call(self, function: Callable[..., Any], block: nn.Module, *args: Any) -> Any:
        return function(block, *args) if self._on else block._call_impl(*args)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Runs the blocks compiled within it, forward and backward, if they are."""
        self._on = self.plain_because is None
        try:
            yield
        finally:
            self._on = False

    def on_trial(self, shape: Hashable) -> bool:
        """Whether a failure in a shape's pass may be the compiler's: none of its has passed yet."""
        return self.plain_because is None and shape not in self._passed

    def passed(self, shape: Hashable) -> None:
        """Notes that a shape's forward and backward pass went through."""
        self._passed.add(shape)

    def give_up(self, reason: str) -> None:
        """Runs the blocks plain from now on."""
        self.plain_because = reason


def why_plain(choice: Compile, device: torch.device) -> tuple[str | None, str | None]:
    """Returns why a device runs the blocks plain, and that again where something is amiss.

    Both are None where it runs them compiled; arguments as `Blocks`'.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    reason = plain_because(choice, capability)
    if reason is not None or capability is None:
        return reason, None
    missing = _missing()
    return missing, missing


def one_line(error: BaseException) -> str:
    """Returns what an error says first, with its kind: the compiler's go on for pages."""
    error = getattr(error, "inner_exception", error)
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:_MOST_TEXT]}"


def _missing() -> str | None:
    """What Triton lacks here; None where it has all."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    # It builds what launches its kernels.
    if "CC" not in environ and not any(map(shutil.which, _COMPILERS)):
        return f"Triton finds no C compiler ({', '.join(_COMPILERS)}, or what CC names)"
    return None
