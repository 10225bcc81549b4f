"""The pictures, runs and micro-batches that benchmarks are made of."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from arlow_trainer.config import ArlowPretrain, Modality, TrainingSection, validate
from arlow_trainer.config.load import preset_manifest
from arlow_trainer.config.presets import deep_merge
from arlow_trainer.data import MicroBatch, center_view

# ImageNet's pictures are about this large.
PICTURE_SIZE = (500, 375)
FILM_SIZE = (320, 240)

_PHOTOGRAPHS = {
    "skimage": ("data", ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png",
                         "motorcycle_right.png", "retina.jpg", "rocket.jpg")),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip

# A tower between the demo's and the full one: its step takes seconds on a CPU core.
MEDIUM: dict[str, Any] = {
    "precision": "fp32",
    "model": {"depth": 6, "embedDim": 384, "hiddenSize": 768, "numHeads": 6, "patchSize": 14},
    "mae": {"decoderDim": 256, "decoderDepth": 4, "decoderHeads": 8},
    "data": {"imageSize": 224},
    "batch": {"globalSize": 32},
}

TOY_TRAINING: dict[str, Any] = {"model": {"patchSize": 12}, "batch": {"globalSize": 4}}
# What the benchmarks of micro-batches on a GPU measure where there is none.
TOY_MICRO_BATCHES: dict[str, Any] = {
    "preset": "tiny",
    "training": TOY_TRAINING,
    "images": (1, 2),
    "clips": (1,),
    "rounds": 1,
    "needs_gpu": False,
}


def photographs() -> list[Image.Image]:
    """Returns the photographs of scikit-image and scikit-learn, cropped to one size."""
    pictures = []
    for package, (folder, names) in _PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"benchmarks: {package} is not installed; install the extra `demo`")
        root = Path(spec.submodule_search_locations[0]) / folder
        for name in names:
            with Image.open(root / name) as image:
                pictures.append(ImageOps.fit(image.convert("RGB"), PICTURE_SIZE))
    return pictures


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Writes `count` JPEG files, the photographs again and again."""
    folder.mkdir(parents=True)
    paths = []
    for number, picture in enumerate(islice(cycle(photographs()), count)):
        paths.append(folder / f"{number:05d}.jpg")
        picture.save(paths[-1], quality=92)
    return paths


def write_drawn_jpegs(folder: Path, count: int) -> None:
    """Writes `count` JPEG files of about ImageNet's size, drawn here: no photographs are needed."""
    folder.mkdir(parents=True)
    width, height = PICTURE_SIZE
    for number in range(count):
        Image.fromarray(_drawn(number, width, height)).save(
            folder / f"{number:05d}.jpg", quality=92
        )


def write_drawn_films(folder: Path, count: int, frames: int) -> None:
    """Writes `count` MPEG-4 films like UCF101's: a window that moves over a picture drawn here."""
    folder.mkdir(parents=True)
    for number in range(count):
        _write_film(folder / f"{number:05d}.mp4", _drawn(number, *PICTURE_SIZE), frames)


def _drawn(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Coarse and fine noise, which decodes about as slowly as a photograph."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    fine = random.integers(-12, 13, (height, width, 3), dtype=np.int16)
    return np.clip(smooth + fine, 0, 255).astype(np.uint8)


def write_films(folder: Path, count: int, frames: int) -> None:
    """Writes `count` MPEG-4 films: a window that moves over the photographs."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(islice(cycle(photographs()), count)):
        _write_film(folder / f"{number:05d}.mp4", np.asarray(picture), frames)


def _write_film(path: Path, pixels: NDArray[np.uint8], frames: int) -> None:
    width, height = FILM_SIZE
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=25)
        stream.width, stream.height = FILM_SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
        for frame in range(frames):
            left = frame % (PICTURE_SIZE[0] - width)
            top = frame // 2 % (PICTURE_SIZE[1] - height)
            window = np.ascontiguousarray(pixels[top : top + height, left : left + width])
            film.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        film.mux(stream.encode())


def micro_batch(run: ArlowPretrain, count: int, first: int = 0) -> MicroBatch:
    """Returns `count` photographs of a run's image size, samples `first`, `first + 1`, ..."""
    pictures = islice(cycle(photographs()), first, first + count)
    size = run.spec.training.data.image_size
    frames = np.stack([center_view([picture], size) for picture in pictures])
    numbers = list(range(first, first + count))
    return MicroBatch("image", torch.from_numpy(frames), mask_seeds=numbers, indexes=numbers)


def noise(training: TrainingSection, modality: Modality, count: int) -> torch.Tensor:
    """Returns samples of noise, uint8 [count, frames, side, side, 3]; one frame is an image."""
    data = training.data
    frames = 1 if modality == "image" else data.clip_frames
    shape = (count, frames, data.image_size, data.image_size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def build_run(preset: str, training: dict[str, Any], **spec: Any) -> ArlowPretrain:
    """Returns a run of a preset with more of its training section and its spec said."""
    manifest = preset_manifest(preset)
    manifest["metadata"] = {"name": "benchmark"}
    manifest["spec"] = deep_merge(manifest["spec"], {"training": training, **spec})
    return validate(manifest, "benchmark")
