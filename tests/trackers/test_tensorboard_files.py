"""TensorBoard's files, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked_records import PICTURE, Tracked, picture, scalars

from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.store import Store
from arlow_trainer.trackers import Picture, Scalars
from support.s3_server import S3Unavailable, running_s3

pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arlow_trainer.trackers.tensorboard_files import FOLDER, TensorBoardFiles


def read_back(url: str) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(f"{url}/{FOLDER}", size_guidance=everything).Reload()


def curve(url: str, tag: str = "loss") -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read_back(url).Scalars(tag)]


def test_scalars_pictures_and_settings_are_read_back(folder: Store, tracked: Tracked) -> None:
    files = TensorBoardFiles(tracked(), folder)
    files.write(scalars([2, 4]))
    files.write([*scalars([6]), picture(6)])
    files.end("finished")
    found = read_back(folder.url)
    assert set(found.Tags()["scalars"]) == {"loss", "lr"}
    assert curve(folder.url) == [(2, 2.0), (4, 4.0), (6, 6.0)]
    assert [event.wall_time for event in found.Scalars("loss")] == [1e9 + 2, 1e9 + 4, 1e9 + 6]
    (image,) = found.Images("reconstruction/image")
    assert (image.step, image.width, image.height) == (6, 40, 30)
    assert image.encoded_image_string == folder.read_bytes(PICTURE)
    (text,) = found.Tensors("training")
    assert "learningRate: 0.003" in text.tensor_proto.string_val[0].decode()
    assert found.SummaryMetadata("training").plugin_data.plugin_name == "text"


def test_a_resumed_run_has_each_step_once(folder: Store, tracked: Tracked) -> None:
    TensorBoardFiles(tracked(attempt=1), folder).write(scalars([2, 4, 6, 8]))
    TensorBoardFiles(tracked(attempt=2, step=4), folder).write(scalars([6], factor=10))
    # Killed, and back at the same checkpoint once more.
    TensorBoardFiles(tracked(attempt=10, step=4), folder).write(scalars([6, 8, 10], factor=20))
    assert curve(folder.url) == [(2, 2.0), (4, 4.0), (6, 120.0), (8, 160.0), (10, 200.0)]


def test_a_large_file_is_followed_by_another(folder: Store, tracked: Tracked) -> None:
    files = TensorBoardFiles(tracked(), folder, part_bytes=500)
    for step in range(1, 41):
        files.write(scalars([step]))
    names = sorted(folder.list_files(FOLDER))
    assert 3 < len(names) < 20
    assert names[0] == "events.out.tfevents.0000000001.000000"
    assert all(size < 1000 for size in folder.list(FOLDER).values())
    assert curve(folder.url) == [(step, float(step)) for step in range(1, 41)]


def test_what_is_written_at_once_is_in_parts_too(folder: Store, tracked: Tracked) -> None:
    TensorBoardFiles(tracked(), folder, part_bytes=500).write(scalars(range(1, 41)))
    assert len(folder.list_files(FOLDER)) > 3
    assert curve(folder.url) == [(step, float(step)) for step in range(1, 41)]


def test_a_picture_that_is_gone_is_left_out(folder: Store, tracked: Tracked) -> None:
    files = TensorBoardFiles(tracked(), folder)
    files.write([Picture(2, 1e9, "reconstruction/image", "pictures/none.png"), *scalars([4])])
    assert curve(folder.url) == [(4, 4.0)]
    assert read_back(folder.url).Tags()["images"] == []


class RefusingStore(Store):
    """Refuses every second write, before it or when it is done."""

    writes = 0

    def extend(self, key: str, data: bytes, known: int) -> None:
        self.writes += 1
        if self.writes % 4 == 0:
            raise StoreError("no answer")
        super().extend(key, data, known)
        if self.writes % 4 == 2:
            raise StoreError("the answer was lost")


@pytest.mark.parametrize("part_bytes", [200, 2**20])
def test_what_is_refused_is_there_once(folder: Store, tracked: Tracked, part_bytes: int) -> None:
    store = RefusingStore(folder.url)
    files = TensorBoardFiles(tracked(), store, part_bytes=part_bytes)
    pending: list[Scalars] = []
    for step in range(1, 31):
        pending += scalars([step])
        try:
            files.write(pending)
        except StoreError:
            continue
        pending = []
    while pending:
        try:
            files.write(pending)
            pending = []
        except StoreError:
            continue
    assert curve(folder.url) == [(step, float(step)) for step in range(1, 31)]


def test_a_reader_sees_a_file_grow(folder: Store, tracked: Tracked) -> None:
    files = TensorBoardFiles(tracked(), folder)
    files.write(scalars([2]))
    reader = read_back(folder.url)
    files.write(scalars([4]))
    assert [event.step for event in reader.Reload().Scalars("loss")] == [2, 4]


def test_tensorboard_reads_what_is_in_s3(
    tmp_path: Path, tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with running_s3(tmp_path / "server") as server:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            store = Store(server.url("models/run"))
            files = TensorBoardFiles(tracked(), store, part_bytes=500)
            for step in range(1, 21):
                files.write(scalars([step]))
            assert len(store.list_files(FOLDER)) > 2
            assert curve(store.url) == [(step, float(step)) for step in range(1, 21)]
    except S3Unavailable as error:
        pytest.skip(str(error))
