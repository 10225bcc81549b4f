"""The ladder of a GPU says what it lacks, and why."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.samples import build_run

from arlow_trainer.engine import Ranks
from benchmarks import gpu_ladder


def test_compiling_that_fails_for_images_alone_is_in_the_table(
    alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def fails_first(graph: Any, _: object) -> Any:
        compiled.append(graph)
        if len(compiled) == 1:
            raise RuntimeError("no kernel | for this\nand a page more")
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fails_first))
    size = replace(gpu_ladder.TOY, compiling=True)
    training = build_run(size.preset, dict(size.training), nodes={"gpus": 1}).spec.training
    try:
        measured = gpu_ladder.measure_rows(alone, training, size)
    finally:
        torch._dynamo.reset()
    result = gpu_ladder.table(measured, training, size)
    problems = {label: time for label, time, *_ in result.rows if "compiled" in label}
    assert list(problems) == [
        f"{kind}: ours, blocks compiled" for kind in ("1 images", "2 images", "1 clips")
    ]
    assert "no kernel | for this" in problems["1 images: ours, blocks compiled"]
    assert "no kernel | for this" in problems["2 images: ours, blocks compiled"]
    assert problems["1 clips: ours, blocks compiled"].endswith(" ms")
    page = result.to_markdown()
    assert page.count("no kernel &#124; for this") == 2
    assert "a page more" not in page
