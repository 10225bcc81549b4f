"""On a machine that has a GPU, as torch says, and no nvcc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.class_folders import stripes

MACHINE = Path(__file__).with_name("no_toolkit")


def python(code: str, *arguments: str, visible: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": visible,
        "PYTHONPATH": os.pathsep.join([str(MACHINE), os.environ.get("PYTHONPATH", "")]),
    }
    environ.pop("CUDA_HOME", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("visible", ["0", "GPU-1f2e", "MIG-3"])
def test_deepspeed_needs_no_compiler_of_cuda(visible: str) -> None:
    done = python(
        "import torch, deepspeed; print(torch.cuda.is_available(), torch.version.cuda)",
        visible=visible,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["True", "13.0"]


@pytest.mark.parametrize("visible", ["", "-1,0"])
def test_a_run_with_its_gpus_hidden_trains_on_cpus(visible: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        stripes("down", number).save(tmp_path / "images" / f"{number}.png")
    done = python(
        "from arlow_trainer.cli import main; main()",
        *("train", "tiny", "--plain", "--log", "text"),
        *("--set", f"checkpoint.url={tmp_path / 'runs'}"),
        *("--set", f"data.images.path={tmp_path / 'images'}", "--set", "data.videoProbability=0"),
        *("--set", "data.workers=0", "--set", "maxStepsPerEpoch=1", "--set", "batch.globalSize=2"),
        *("--set", "picturesEverySteps=0", "--set", "optimizer.warmupSteps=1"),
        visible=visible,
    )
    assert done.returncode == 0, done.stderr
    assert "1 rank on CPUs: CUDA_VISIBLE_DEVICES hides any GPU" in done.stdout + done.stderr
    assert "finished: 1 steps done" in done.stdout + done.stderr
