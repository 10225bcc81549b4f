"""An exported tower as programs for items of one grid: torch.export's and ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.model.geometry import Grid

ONNX = "onnx/model.onnx"
PROGRAM = "torch_export/model.pt2"
# How far a program's outputs may be from the tower's.
CLOSE = 1e-4
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OfOneGrid(nn.Module):
    """A tower for items of one grid, with nothing but tensors as input and outputs."""

    def __init__(self, tower: ArlowVLVisionModel, grid: Grid) -> None:
        super().__init__()
        self.tower, self.grid = tower, grid

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Patches [items, t * h * w, features] to visual tokens [items, tokens, hidden_size], their
        mean [items, hidden_size] and the DeepStack features, each of the tokens' shape."""
        visual, *deepstack = self.tower.encode(pixel_values, self.grid)
        return visual, visual.mean(dim=1), *deepstack


def grid_of_training(run: ArlowPretrain) -> Grid:
    """Returns the grid of the pictures that a run was trained on."""
    training = run.spec.training
    side = training.data.image_size // training.model.patch_size
    return 1, side, side


def check_packages() -> None:
    """Raises ConfigError where a package that writes or runs ONNX is missing."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"--onnx needs {', '.join(missing)}: pip install 'arlow-pretrain[onnx]'")


def write_programs(tower: ArlowVLVisionModel, grid: Grid, folder: Path) -> list[str]:
    """Writes a float32 tower for any number of items of one grid; returns the files' names.

    Raises ConfigError as `check_packages`, and RuntimeError where an output of a program is not the
    tower's within 1e-4: nothing that computes something else is left to be used.
    """
    check_packages()
    module = OfOneGrid(tower, grid).eval()
    time, height, width = grid
    shape = (time * height * width, tower.config.patch_features)
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, *shape, generator=drawn)
    outputs = ["last_hidden_state", "pooler_output"]
    outputs += [f"deepstack_features_{n}" for n in range(len(tower.deepstack_mergers))]
    items = {"pixel_values": {0: torch.export.Dim("items", min=1)}}
    for name in (ONNX, PROGRAM):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, (pixels,), dynamic_shapes=items)
        torch.export.save(program, folder / PROGRAM)
        translated = torch.onnx.export(
            program,
            (pixels,),
            input_names=["pixel_values"],
            output_names=outputs,
            dynamic_shapes=items,
            verbose=False,
        )
        assert translated is not None
        # Its weights are a file beside it where it is larger than 2 GB.
        translated.save(folder / ONNX, external_data=False)
        _check(module, folder, torch.randn(3, *shape, generator=drawn))
    return [
        str(path.relative_to(folder))
        for name in (ONNX, PROGRAM)
        for path in sorted((folder / name).parent.iterdir())
    ]


def _check(module: OfOneGrid, folder: Path, pixels: Tensor) -> None:
    import onnxruntime

    expected = module(pixels)
    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    of_onnx = session.run(None, {"pixel_values": pixels.numpy()})
    of_torch = torch.export.load(folder / PROGRAM).module()(pixels)
    for name, seen in ((ONNX, map(torch.from_numpy, of_onnx)), (PROGRAM, of_torch)):
        for output, right in zip(seen, expected, strict=True):
            if not torch.allclose(output, right, rtol=CLOSE, atol=CLOSE):
                apart = (output - right).abs().max().item()
                raise RuntimeError(f"{name} computes other features than the tower, {apart} apart")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the packages say of their own code, and of torchvision, which is not needed."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
