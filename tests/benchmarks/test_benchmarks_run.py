"""Every benchmark runs at a toy size, and measures what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import BENCHMARKS  # noqa: E402
from benchmarks.timing import Times  # noqa: E402

from arlow_trainer.config import ProbeSection, SourceSection, TrainingSection  # noqa: E402
from arlow_trainer.plan.flops import forward_flops  # noqa: E402
from arlow_trainer.plan.tokens import tokens_per_image  # noqa: E402
from arlow_trainer.probe.labelled import open_labelled  # noqa: E402
from benchmarks import gpu, pictures, telemetry, tower  # noqa: E402


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_writes_its_table(name: str, tmp_path: Path) -> None:
    if name == "fleet" and not shutil.which("promtool"):
        pytest.skip("Prometheus is missing: apt-get install prometheus")
    out = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks", "--toy", "--only", name, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    machine, *sections = re.split(r"^## ", out.read_text(), flags=re.MULTILINE)
    assert re.search(r"^\| CPU \| \S", machine, re.MULTILINE)
    (section,) = sections
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) >= 3
    assert all(re.search(r"\d", row) for row in rows[2:])
    assert "\n- " in section


def test_both_gpu_commands_run_whole_where_there_is_none(tmp_path: Path) -> None:
    """At toy sizes on a CPU, so that nothing of them runs for the first time on a GPU."""
    for what in ("tests", "benchmarks"):
        out = tmp_path / f"{what}.md"
        command = [sys.executable, "-m", "benchmarks.gpu", what, "--toy", "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    tests, measured = ((tmp_path / f"{what}.md").read_text() for what in ("tests", "benchmarks"))
    assert "# Tests on a GPU" in tests
    marked = [line for line in tests.splitlines() if "needs a GPU: run make test-gpu" in line]
    assert len(marked) >= 10
    for file in ("test_engine_gpu", "test_modeling", "test_buffers", "test_copies"):
        assert any(file in line for line in marked)
    assert measured.startswith("# Benchmarks on a GPU")
    for told in (
        *("1 clips: VideoMAE", "2 images: ours, blocks compiled", "the matrix products alone"),
        *("1 images", "1 clips", "3 images + 1 clips", "start: imports", "start: restore"),
        *("start: first step", "a step: data", "a step: optimizer"),
        *("From the kill to the next step", "The wait for data", "Save 1:", "Save 2:"),
        *("Memory of the process", "longest kernels", "again after it: mean loss"),
    ):
        assert told in measured
    # The same steps, from the same state and samples.
    (apart,) = re.findall(r", (\S+) apart", measured)
    assert float(apart) < 1e-6


@pytest.mark.parametrize("what", ["tests", "benchmarks"])
def test_gpu_commands_say_that_there_is_no_gpu(what: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", what, "--out", str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert f"{what} on a GPU: a GPU is needed: 1 rank on CPUs" in done.stderr
    assert "Traceback" not in done.stderr


def test_gpu_commands_say_what_python_lacks() -> None:
    assert gpu.missing_modules(gpu.MODULES + gpu.TEST_MODULES) is None
    told = gpu.missing_modules(("torch", "a_module_of_nobody"))
    assert told is not None
    assert "lacks a_module_of_nobody: put their wheels" in told


@pytest.mark.parametrize("size", [tower.FULL, tower.TOY])
def test_products_are_those_that_the_plan_counts(size: tower.Size) -> None:
    training = TrainingSection.model_validate(
        {
            "model": {
                "depth": size.depth,
                "embedDim": size.width,
                "numHeads": size.heads,
                "hiddenSize": size.hidden_size,
            },
            "mae": {"maskRatio": size.mask_ratio},
            "data": {"imageSize": size.image_size},
        }
    )
    counted = forward_flops(training, tokens_per_image(training))
    products = tower.tower_products(size, mergers=True)
    forward = sum(one.flops // (3 if one.both_gradients else 2) for one in products)
    assert forward == size.batch * (counted.total - counted.decoder)


def test_readouts_are_counted_as_often_as_a_run_makes_them() -> None:
    measured = telemetry.Measured(Times({}), [1.0, 1.0], [3.0, 3.0, 15.0], 0.0, 0.0, 0.0)
    # Nine reports of a second, and one with a read-out of seven in the mean.
    assert measured.reporting(log_every=10) == pytest.approx((9 * 1.0 + 7.0) / 10)


def test_the_probe_has_a_set_without_fashion_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "FASHION_MNIST", tmp_path / "none")
    folder, what = pictures._labelled_set(tmp_path / "set")
    assert "photographs" in what
    labelled = open_labelled(ProbeSection(data=SourceSection(path=str(folder)), limit=0))
    assert (labelled.classes, len(labelled.train), len(labelled.test)) == (9, 180, 180)
