"""UCF101 from its archives."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data import open_source
from arlow_trainer.data.prepare import PreparedSet, prepare_ucf101

# As in the original: class folders, groups, and a class whose capitals differ between the two.
VIDEOS = [
    "Archery/v_Archery_g01_c01.avi",
    "Archery/v_Archery_g08_c01.avi",
    "HandstandPushups/v_HandStandPushups_g08_c01.avi",
    "YoYo/v_YoYo_g02_c03.avi",
]


def write_video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(0, 200, 20):
            image = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "UCF-101"
    for video in VIDEOS:
        write_video(folder / video)
    return folder


@pytest.fixture(scope="module")
def archive(unpacked: Path) -> Path:
    path = unpacked.parent / "UCF101.zip"
    with zipfile.ZipFile(path, "w") as files:
        for video in VIDEOS:
            files.write(unpacked / video, f"UCF-101/{video}")
    return path


@pytest.fixture(scope="module")
def splits(unpacked: Path) -> Path:
    path = unpacked.parent / "UCF101TrainTestSplits-RecognitionTask.zip"
    with zipfile.ZipFile(path, "w") as files:
        train = [VIDEOS[1], VIDEOS[2].replace("stand", "Stand"), VIDEOS[3]]
        lines = [f"{video} {label}\r\n" for label, video in enumerate(train, start=1)]
        files.writestr("ucfTrainTestlist/trainlist01.txt", "".join(lines))
        files.writestr("ucfTrainTestlist/testlist01.txt", VIDEOS[0] + "\r\n")
        files.writestr("ucfTrainTestlist/trainlist02.txt", "Surfing/v_Surfing_g01_c01.avi 1\n")
        files.writestr("ucfTrainTestlist/testlist02.txt", "")
    return path


def test_lays_out_the_official_split(archive: Path, splits: Path, tmp_path: Path) -> None:
    prepared = prepare_ucf101(archive, splits, str(tmp_path / "ucf101"))
    assert prepared == PreparedSet(str(tmp_path / "ucf101"), classes=3, train=3, test=1)
    held = sorted(str(p.relative_to(tmp_path / "ucf101")) for p in tmp_path.rglob("*.avi"))
    assert held == sorted([f"test/{VIDEOS[0]}", *(f"train/{video}" for video in VIDEOS[1:])])
    assert [p.name for p in (tmp_path / "ucf101").iterdir() if p.name.startswith(".")] == []
    source = open_source(SourceSection(path=prepared.out), "video")
    assert len(source) == 3


def test_an_unpacked_folder_is_kept(unpacked: Path, splits: Path, tmp_path: Path) -> None:
    prepare_ucf101(unpacked, splits, str(tmp_path))
    assert len(list(unpacked.rglob("*.avi"))) == len(VIDEOS)
    assert len(list(tmp_path.rglob("*.avi"))) == len(VIDEOS)


def test_without_the_split_all_is_train(unpacked: Path) -> None:
    prepared = prepare_ucf101(unpacked, None, "memory://prepared")
    assert (prepared.train, prepared.test) == (4, 0)
    assert len(fsspec.filesystem("memory").find("/prepared/train")) == 4
    assert len(open_source(SourceSection(path="memory://prepared"), "video")) == 4


def test_videos_that_the_archive_lacks_are_named(
    archive: Path, splits: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"lacks 1 of the 1 videos of train, fold 2.*v_Surfing"):
        prepare_ucf101(archive, splits, str(tmp_path), fold=2)
    assert list(tmp_path.rglob("*.avi")) == []


def test_mistakes_are_reported(archive: Path, splits: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(DataError, match="folds 1, 2 and 3"):
        prepare_ucf101(archive, splits, out, fold=4)
    with pytest.raises(DataError, match=r"gone.rar: no such file"):
        prepare_ucf101(tmp_path / "gone.rar", splits, out)
    with pytest.raises(DataError, match=r"holds no \.avi videos"):
        prepare_ucf101(splits, splits, out)
    with pytest.raises(DataError, match=r"holds no trainlist01\.txt"):
        prepare_ucf101(archive, archive, out)
    with pytest.raises(DataError, match="not a folder and not a zip"):
        prepare_ucf101(archive, tmp_path / "gone.zip", out)


def test_a_rar_without_an_unpacker_is_reported(
    tmp_path: Path, splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rar = tmp_path / "UCF101.rar"
    rar.write_bytes(b"Rar!\x1a\x07\x00")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="install one of bsdtar, unrar, 7z"):
        prepare_ucf101(rar, splits, str(tmp_path / "out"))


def test_a_torn_archive_is_reported(archive: Path, splits: Path, tmp_path: Path) -> None:
    torn = tmp_path / "UCF101.zip"
    whole = bytearray(archive.read_bytes())
    middle = len(whole) // 3
    whole[middle : middle + 400] = b"torn" * 100
    torn.write_bytes(whole)
    with pytest.raises(DataError, match=r"UCF101.zip: cannot be unpacked"):
        prepare_ucf101(torn, splits, str(tmp_path / "out"))


@pytest.mark.skipif(
    shutil.which("bsdtar") is None, reason="no bsdtar here: `apt install libarchive-tools`"
)
def test_an_unpacker_unpacks_what_is_no_zip(unpacked: Path, splits: Path, tmp_path: Path) -> None:
    rar = tmp_path / "UCF101.rar"  # libarchive goes by the content; nothing free writes RAR
    with tarfile.open(rar, "w") as files:
        files.add(unpacked, "UCF-101")
    prepared = prepare_ucf101(rar, splits, str(tmp_path / "out"))
    assert (prepared.train, prepared.test) == (3, 1)


@pytest.mark.skipif(
    not any(map(shutil.which, ["bsdtar", "unrar", "7z", "7zz", "unar"])),
    reason="no unpacker here: `apt install libarchive-tools` to run it",
)
def test_a_damaged_rar_is_reported(tmp_path: Path, splits: Path) -> None:
    rar = tmp_path / "UCF101.rar"
    rar.write_bytes(b"Rar!\x1a\x07\x00" + bytes(100))
    with pytest.raises(DataError, match=r"UCF101.rar: \w+ cannot unpack it"):
        prepare_ucf101(rar, splits, str(tmp_path / "out"))
