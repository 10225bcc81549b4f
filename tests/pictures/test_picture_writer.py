"""Pictures stored during training."""

from __future__ import annotations

import io
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from arlow_trainer.config import Modality, SourceSection
from arlow_trainer.data import Source, open_source
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.pictures.drawing import DESCRIPTION
from arlow_trainer.pictures.stored import StoredPicture, list_pictures
from arlow_trainer.pictures.writer import MAX_PENDING, PictureWriter
from arlow_trainer.storage.store import Store
from support.stored_run import tiny_run

RUN = tiny_run()


@pytest.fixture
def sources(photograph: Path, video_file: Path, tmp_path: Path) -> dict[Modality, Source]:
    found: dict[Modality, Source] = {}
    media: list[tuple[Modality, Path]] = [("image", photograph), ("video", video_file)]
    for modality, path in media:
        folder = tmp_path / modality
        folder.mkdir()
        shutil.copy(path, folder)
        found[modality] = open_source(SourceSection(path=str(folder)), modality)
    return found


class HeldStore(Store):
    """A store whose writes wait until `free` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.free = threading.Event()

    def write_bytes(self, key: str, data: bytes) -> None:
        self.free.wait(60)
        super().write_bytes(key, data)


def described(store: Store, key: str) -> str:
    with Image.open(io.BytesIO(store.read_bytes(key))) as image:
        return str(image.info[DESCRIPTION])


def test_pictures_of_both_modalities_are_stored_by_step(
    sources: dict[Modality, Source], tmp_path: Path
) -> None:
    store, module = Store(str(tmp_path / "run")), build_autoencoder(RUN.spec.training)
    with PictureWriter(RUN, store, sources) as writer:
        writer.submit(module, 0)
        with torch.no_grad():
            for parameter in module.decoder.head.parameters():
                parameter.zero_()
        writer.submit(module, 1000)
    assert list_pictures(store) == [
        StoredPicture(0, "image", "pictures/step-0-image.png"),
        StoredPicture(0, "video", "pictures/step-0-video.png"),
        StoredPicture(1000, "image", "pictures/step-1000-image.png"),
        StoredPicture(1000, "video", "pictures/step-1000-video.png"),
    ]
    description = described(store, "pictures/step-1000-image.png")
    assert "astronaut.png" in description
    assert "PSNR" in description
    assert description != described(store, "pictures/step-0-image.png")
    # The sample and its mask are the same every time: only the weights make the difference.
    assert module.training
    told: list[tuple[int, str, str]] = []
    with PictureWriter(RUN, store, sources, lambda *stored: told.append(stored)) as writer:
        writer.submit(module, 2000)
    assert told == [
        (2000, f"reconstruction/{modality}", f"pictures/step-2000-{modality}.png")
        for modality in ("image", "video")
    ]
    assert described(store, "pictures/step-2000-image.png") == description


def test_half_precision_weights_reconstruct_too(
    sources: dict[Modality, Source], tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "run"))
    with PictureWriter(RUN, store, sources) as writer:
        writer.submit(build_autoencoder(RUN.spec.training).to(torch.bfloat16), 7)
    assert [each.step for each in list_pictures(store)] == [7, 7]


def test_a_slow_store_does_not_delay_a_step(
    sources: dict[Modality, Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, module = HeldStore(str(tmp_path / "run")), build_autoencoder(RUN.spec.training)
    writer = PictureWriter(RUN, store, {"image": sources["image"]})
    writer.submit(module, 0)
    for step in range(1, MAX_PENDING + 2):
        writer.submit(module, step)
    store.free.set()
    writer.close()
    assert [each.step for each in list_pictures(store)] == list(range(MAX_PENDING))
    assert caplog.text.count("the store is slow") == 2


def test_a_store_that_hangs_does_not_delay_the_end(
    sources: dict[Modality, Source],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, module = HeldStore(str(tmp_path / "run")), build_autoencoder(RUN.spec.training)
    writer = PictureWriter(RUN, store, {"image": sources["image"]})
    writer.submit(module, 0)
    for step in range(1, MAX_PENDING):
        writer.submit(module, step)
    start = time.monotonic()
    writer.close(timeout_s=0.5)
    assert 0.4 < time.monotonic() - start < 5
    assert f"the last pictures ({MAX_PENDING}) did not reach the store within 0 s" in caplog.text
    store.free.set()


def test_a_store_that_fails_does_not_end_the_run(
    sources: dict[Modality, Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path / "run"))
    store.write_bytes("pictures", b"a file where the folder should be")
    with PictureWriter(RUN, store, sources) as writer:
        writer.submit(build_autoencoder(RUN.spec.training), 5)
    for modality in sources:
        assert f"the {modality} of step 5 is not stored: Cannot write {store.url}" in caplog.text


def test_a_set_without_a_readable_sample_is_left_out(
    sources: dict[Modality, Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "image" / "astronaut.png").write_bytes(b"nothing")
    store = Store(str(tmp_path / "run"))
    with caplog.at_level(logging.WARNING), PictureWriter(RUN, store, sources) as writer:
        writer.submit(build_autoencoder(RUN.spec.training), 5)
    assert [each.modality for each in list_pictures(store)] == ["video"]
    assert "no pictures of images" in caplog.text


def test_pictures_are_due_at_the_interval_and_at_the_end(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    with PictureWriter(RUN, store, {}) as writer:
        assert [step for step in range(1, 501) if writer.due(step, 500)] == [200, 400, 500]
    never = RUN.spec.training.model_copy(update={"pictures_every_steps": 0})
    run = RUN.model_copy(update={"spec": RUN.spec.model_copy(update={"training": never})})
    with PictureWriter(run, store, {}) as writer:
        assert not writer.due(2500, 2500)


def test_other_files_beside_the_pictures_are_ignored(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for name in ("step-20-image.png", "step-3-image.png", "step-x-image.png", "notes.txt"):
        store.write_bytes(f"pictures/{name}", b"")
    assert [each.step for each in list_pictures(store)] == [3, 20]
