"""UCF101 (Soomro et al., 2012) from its original archives, as its hub script no longer loads."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from arlow_trainer.config.errors import DataError
from arlow_trainer.data.errors import access_error
from arlow_trainer.storage.connection import connect

# Arguments of each tool that unpacks {archive} into {folder}; the first that is installed is used.
_UNPACKERS = {
    "bsdtar": ("-xf", "{archive}", "-C", "{folder}"),
    "unrar": ("x", "-o+", "-idq", "{archive}", "{folder}/"),
    "7z": ("x", "-y", "-bd", "-o{folder}", "{archive}"),
    "7zz": ("x", "-y", "-bd", "-o{folder}", "{archive}"),
    "unar": ("-q", "-f", "-o", "{folder}", "{archive}"),
}
_FOLDS = (1, 2, 3)
_NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class PreparedSet:
    """A set that was written."""

    out: str
    """Folder or URL: the value for data.videos.path."""
    classes: int
    train: int
    """Videos in <out>/train/<Class>/."""
    test: int
    """Videos in <out>/test/<Class>/; 0 without the split's archive."""


def prepare_ucf101(archive: Path, splits: Path | None, out: str, fold: int = 1) -> PreparedSet:
    """Writes UCF101 as `<out>/train/<Class>/*.avi` and `<out>/test/<Class>/*.avi`.

    `archive` is the original UCF101.rar, the same as .zip, or a folder it was unpacked to;
    `splits` the official UCF101TrainTestSplits-RecognitionTask.zip or its folder, of which `fold`
    (1, 2 or 3) is taken; without it every video goes to train. `out` is a local folder or an fsspec
    URL.

    Raises DataError, before anything is written, when an archive cannot be read, holds no videos,
    or lacks videos that the split names; CredentialsError when `out` refuses access, StoreError
    when it is out of reach.
    """
    if fold not in _FOLDS:
        raise DataError(f"--fold {fold}: UCF101 has the folds 1, 2 and 3")
    with _unpacked(archive, out) as folder:
        # By lower case: the lists and the folders disagree about a capital or two.
        videos = {f"{f.parent.name}/{f.name}".lower(): f for f in sorted(folder.rglob("*.avi"))}
        if not videos:
            raise DataError(
                f"{archive} holds no .avi videos; give the original UCF101.rar, or the folder "
                "UCF-101 that it unpacks to"
            )
        lists = {"train": list(videos), "test": []}
        if splits is not None:
            lists = {split: _read_list(splits, split, fold) for split in lists}
        for split, names in lists.items():
            missing = [name for name in names if name.lower() not in videos]
            if missing:
                raise DataError(
                    f"{archive} lacks {len(missing)} of the {len(names)} videos of {split}, fold "
                    f"{fold}: {', '.join(missing[:_NAMED_IN_ERRORS])}, ...; the archive is "
                    "incomplete: download or unpack it again"
                )
        for split, names in lists.items():
            for name in names:
                video = videos[name.lower()]
                target = f"{out.rstrip('/')}/{split}/{video.parent.name}/{video.name}"
                _put(video, target, keep=folder == archive)
    classes = {name.split("/")[0].lower() for names in lists.values() for name in names}
    return PreparedSet(out, len(classes), len(lists["train"]), len(lists["test"]))


@contextmanager
def _unpacked(archive: Path, out: str) -> Iterator[Path]:
    """Yields the folder of an archive's files; a temporary one lies beside a local `out`."""
    if archive.is_dir():
        yield archive
        return
    if not archive.is_file():
        raise DataError(f"{archive}: no such file; give UCF101.rar or the folder it unpacks to")
    beside = None
    if "://" not in out:
        beside = out  # the same file system, so that videos are moved and not copied
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise access_error(out, error, "written") from error
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=beside) as folder:
        _unpack(archive, Path(folder))
        yield Path(folder)


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        try:
            with zipfile.ZipFile(archive) as files:
                files.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{archive}: cannot be unpacked: {error}; the download may be incomplete, or the "
                "disk full"
            ) from error
        return
    tool = next((name for name in _UNPACKERS if shutil.which(name)), None)
    if tool is None:
        raise DataError(
            f"{archive}: nothing here unpacks it; install one of {', '.join(_UNPACKERS)} "
            "(Debian: `apt install libarchive-tools`), or unpack it and give the folder"
        )
    arguments = [argument.format(archive=archive, folder=folder) for argument in _UNPACKERS[tool]]
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(
            f"{archive}: {tool} cannot unpack it: {output[-1] if output else done.returncode}; the "
            "download may be incomplete, or the disk full"
        )


def _read_list(splits: Path, split: str, fold: int) -> list[str]:
    """Returns a split's videos as <Class>/<file>."""
    name = f"{split}list{fold:02d}.txt"
    text: str | None = None
    if splits.is_dir():
        text = next((path.read_text() for path in splits.rglob(name)), None)
    elif splits.is_file() and zipfile.is_zipfile(splits):
        with zipfile.ZipFile(splits) as files:
            member = next((m for m in files.namelist() if PurePosixPath(m).name == name), None)
            text = files.read(member).decode() if member else None
    else:
        raise DataError(
            f"{splits}: not a folder and not a zip; give UCF101TrainTestSplits-RecognitionTask.zip"
        )
    if text is None:
        raise DataError(f"{splits} holds no {name}; give UCF101TrainTestSplits-RecognitionTask.zip")
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _put(video: Path, target: str, keep: bool) -> None:
    """Copies a video; without `keep` it is moved where `target` is local."""
    try:
        if "://" in target:
            filesystem, path = connect(target)
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)
            filesystem.put_file(str(video), path)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if keep:
            shutil.copyfile(video, target)
        else:
            shutil.move(video, target)
    except Exception as error:
        raise access_error(target, error, "written") from error
