"""Features are averages of the exported tower's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from arlow_trainer.config import ProbeSection, SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.model import ArlowImageProcessor, ArlowVLVisionModel
from arlow_trainer.probe.features import image_features, split_features
from arlow_trainer.probe.labelled import LabelledSplit, open_labelled
from support.stored_run import tiny_run


@pytest.fixture(scope="module")
def tower() -> ArlowVLVisionModel:
    tower = build_autoencoder(tiny_run().spec.training).tower.eval()
    torch.manual_seed(0)
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return tower


def split(folder: Path) -> LabelledSplit:
    section = ProbeSection(data=SourceSection(path=str(folder)), limit=0)
    return open_labelled(section).train


def test_features_are_the_means_of_what_processor_and_tower_return(
    tower: ArlowVLVisionModel,
) -> None:
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    features = image_features(tower, frames)
    assert features.shape == (3, 2 * 32)
    processor = ArlowImageProcessor(patch_size=4, do_resize=False)
    for image, feature in zip(frames, features, strict=True):
        inputs = processor(images=Image.fromarray(image.numpy()), return_tensors="pt")
        with torch.no_grad():
            visual, [deepstack] = tower(inputs["pixel_values"], inputs["image_grid_thw"])
        expected = torch.cat([visual.mean(dim=0), deepstack.mean(dim=0)])
        torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-4)


def test_every_sample_has_its_own_label(tower: ArlowVLVisionModel, folder: Path) -> None:
    found = split(folder)
    done: list[int] = []
    (samples, twice), broken = split_features([tower, tower], found, 32, done.append)
    assert (len(samples), broken, sum(done)) == (12, 0, 12)
    assert samples.labels.tolist() == list(found.classes)
    assert torch.equal(samples.features, twice.features)
    assert samples.features.isfinite().all()
    assert not torch.equal(samples.features[0], samples.features[1])


def test_broken_images_are_skipped(tower: ArlowVLVisionModel, folder: Path) -> None:
    found = split(folder)
    whole, _ = split_features([tower], found, 32, lambda done: None)
    path = folder / "train" / "across" / "2.png"
    broken_index = [found.source.read(p).content for p in found.positions].index(str(path))
    path.write_bytes(path.read_bytes()[:100])
    [samples], broken = split_features([tower], found, 32, lambda done: None)
    readable = [index for index in range(12) if index != broken_index]
    assert broken == 1
    assert samples.labels.tolist() == [found.classes[index] for index in readable]
    torch.testing.assert_close(samples.features, whole[0].features[readable])


def test_nothing_but_broken_images(tower: ArlowVLVisionModel, folder: Path) -> None:
    found = split(folder)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 12 images can be decoded"):
        split_features([tower], found, 32, lambda done: None)
