"""On a real labelled set, a pretrained tower beats the same tower with random weights."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from arlow_trainer.config import ProbeSection, SourceSection
from arlow_trainer.data.idx import read_idx
from arlow_trainer.probe import run_probe
from arlow_trainer.probe.results import table_rows
from arlow_trainer.storage.store import Store

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
COUNTS = {"train": 10_000, "t10k": 2_000}
TIMEOUT_S = 400

TRAINING = {
    "preset": "tiny",
    "maxStepsPerEpoch": 600,
    "logEverySteps": 100,
    "picturesEverySteps": 0,
    # Garments are centred and fill their images: no crops.
    "data": {
        "videoProbability": 0,
        "imageSize": 32,
        "minCropScale": 1.0,
        "workers": 0,
    },
    "model": {
        "depth": 4,
        "embedDim": 64,
        "hiddenSize": 64,
        "numHeads": 4,
        "patchSize": 4,
        "temporalPatchSize": 1,
        # With 16 merge units, of which 4 are visible, the default window isolates each of them.
        "deformableAttentionWindow": 0,
        "deepstackVisualIndexes": [1, 2],
    },
    "mae": {"decoderDim": 64, "decoderDepth": 1, "decoderHeads": 4},
    "batch": {"globalSize": 32},
    "optimizer": {"learningRate": 3e-3, "warmupSteps": 40},
}

needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST.is_dir(), reason="no Fashion-MNIST: apt-get install dataset-fashion-mnist"
)


def arlow(*words: object) -> str:
    command = [str(Path(sys.executable).with_name("arlow")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_part(folder: Path) -> None:
    """Writes the first images of the set, in its own format."""
    folder.mkdir()
    for split, count in COUNTS.items():
        for content, name in (("images", "images-idx3"), ("labels", "labels-idx1")):
            file = f"{split}-{name}-ubyte.gz"
            values = read_idx(FASHION_MNIST / file, content)[:count]  # type: ignore[arg-type]
            shape = np.array(values.shape, ">u4").tobytes()
            head = bytes([0, 0, 8, values.ndim]) + shape
            (folder / file).write_bytes(gzip.compress(head + values.tobytes(), 1))


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fashion")
    write_part(folder / "idx")
    output = arlow("data", "prepare", "idx", folder / "idx", "--out", folder / "set")
    assert "10,000 of train, 2,000 of test, 10 classes" in output
    return folder


@needs_fashion_mnist
def test_pretraining_beats_random_weights(
    fashion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {"images": {"path": str(fashion / "set")}}
    manifest = {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": "fashion"},
        "spec": {
            "training": TRAINING | {"data": TRAINING["data"] | images},  # type: ignore[operator]
            "checkpoint": {"url": str(fashion / "runs"), "everySteps": 600},
        },
    }
    (fashion / "run.yaml").write_text(yaml.safe_dump(manifest))
    arlow("train", fashion / "run.yaml", "--ranks", 1, "--plain")
    section = ProbeSection(data=SourceSection(path=str(fashion / "set")))
    probed = run_probe(Store(str(fashion / "runs" / "fashion")), None, section)
    assert probed.samples == {"train": 2000, "test": 2000}
    with capsys.disabled():
        print(f"\nFashion-MNIST after {probed.step} steps: method, pretrained, random, margin")
        for row in table_rows(probed.results):
            print("  ", *row, sep="  ")
    for result in probed.results:
        assert result.margin > 0.02, result
        assert result.margin > 3 * result.margin_spread, result
        # Far better than chance, so that features and labels are those of the same samples.
        assert result.baseline > 0.4
