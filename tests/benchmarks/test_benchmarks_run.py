"""Every benchmark runs at a toy size, and measures what it says."""

from __future__ import annotations

import re
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
from benchmarks import pictures, telemetry, tower  # noqa: E402


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_writes_its_table(name: str, tmp_path: Path) -> None:
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
