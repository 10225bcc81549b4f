"""`arlow data inspect`: what a run would use, before it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

Arlow = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("train/1.png", "train/2.png", "train/3.jpg", "test/4.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(path)
    (tmp_path / "set" / "train" / "2.png").write_bytes(b"torn")
    (tmp_path / "set" / "labels.csv").touch()
    return tmp_path / "set"


def film(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(40):
            image = np.full((32, 48, 3), number * 6, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_folder_as_json(arlow: Arlow, pictures: Path) -> None:
    code, out, _ = arlow("data", "inspect", str(pictures), "--json")
    found = json.loads(out)
    assert code == 0
    told = ("used", "of", "split", "splits", "formats", "ignored", "sizes")
    assert {key: found[key] for key in told} == {
        "used": 3,
        "of": 4,
        "split": "train",
        "splits": {"train": 3, "test": 1},
        "formats": {".png": 2, ".jpg": 1},
        "ignored": {".csv": 1},
        "sizes": {"40 x 30": 2},
    }
    (broken,) = found["unreadable"]
    assert broken["name"].endswith("train/2.png")
    assert broken["why"] == "not an image that Pillow can read"
    code, out, _ = arlow("data", "inspect", str(pictures), "--json", "--split", "test")
    assert (code, json.loads(out)["used"]) == (0, 1)


def test_a_manifest_as_text_and_sheets(arlow: Arlow, pictures: Path, tmp_path: Path) -> None:
    clip = film(tmp_path / "films" / "1.mp4")
    manifest = tmp_path / "run.yaml"
    sets = f"images: {{path: {pictures}}}, videos: {{path: {clip.parent}}}"
    manifest.write_text(
        "apiVersion: arlow.dev/v1alpha1\nkind: ArlowPretrain\nmetadata: {name: x}\n"
        f"spec: {{training: {{preset: tiny, data: {{{sets}}}}}, checkpoint: {{url: /runs}}}}\n"
    )
    sheet = tmp_path / "sheet.png"
    code, out, err = arlow("data", "inspect", str(manifest), "--sheet", str(sheet))
    assert code == 0, err
    assert f"{pictures}: using 3 of 4 images (split train)" in out
    assert f"{clip.parent}: using 1 of 1 videos (no splits)" in out
    assert "files of each split: train 3, test 1" in out
    assert "formats: .png 2, .jpg 1" in out
    assert "passing over 1 .csv" in out
    with Image.open(tmp_path / "sheet-image.png") as image:
        assert image.size == (8 * 100 - 4, 4 * 100 - 4)
        assert image.getpixel((10, 10)) == (200, 200, 200)
    with Image.open(tmp_path / "sheet-video.png") as image:
        assert image.size == (4 * 100 - 4, 6 * 100 - 4)  # tiny clips have four frames


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no such folder"), ("empty", "is empty"), ("torn", "none of 1 images tried")],
)
def test_what_cannot_be_used_ends_with_65(
    arlow: Arlow, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "1.jpg").write_bytes(b"torn")
    code, _, err = arlow("data", "inspect", str(tmp_path / name))
    assert code == 65
    assert message in err
