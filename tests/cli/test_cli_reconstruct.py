"""`arlow reconstruct`."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from arlow_trainer.storage.store import Store
from support.stored_run import save_checkpoint, tiny_run

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_reconstruct_a_photograph_and_a_video(
    arlow, store: Store, photograph: Path, video_file: Path
) -> None:
    for path in (photograph, video_file):
        code, out, _ = arlow("reconstruct", store.url, str(path))
        assert code == 0
        assert f"wrote the reconstruction to {path.stem}-reconstruction.png" in out
        assert "Hidden patches: PSNR " in out
        with Image.open(f"{path.stem}-reconstruction.png") as image:
            assert image.width > 700


def test_mask_and_seed_change_the_picture(arlow, store: Store, photograph: Path) -> None:
    seen = set()
    for options in ((), ("--seed", "1"), ("--mask-ratio", "0.5")):
        target = f"sub/{len(seen)}.png"
        code, _, _ = arlow("reconstruct", store.url, str(photograph), "--out", target, *options)
        assert code == 0
        seen.add(Path(target).read_bytes())
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--mask-ratio", "1"), 78, "must hide some but not all"),
        (("--out", "picture.gif"), 78, "give a name that ends in .png"),
        (("--out", "/proc/picture.png"), 74, "/proc/picture.png: cannot be written"),
    ],
)
def test_wrong_options_are_reported(
    arlow, store: Store, photograph: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = arlow("reconstruct", store.url, str(photograph), *options)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_a_file_that_is_no_image_is_reported(arlow, store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    path = str(tmp_path / "notes.txt")
    code, _, err = arlow("reconstruct", store.url, path)
    assert code == 65
    assert f"{path}: not an image that Pillow can read" in err


def test_a_missing_file_is_reported(arlow, store: Store, tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "photo.jpg", "no such file"), (tmp_path, "is a folder")):
        code, out, err = arlow("reconstruct", store.url, str(path))
        assert (code, out) == (65, "")
        assert err == f"error: {path}: {reason}; give an image or video file\n"


def test_a_url_without_checkpoints_is_reported(arlow, photograph: Path, tmp_path: Path) -> None:
    code, _, err = arlow("reconstruct", str(tmp_path / "none"), str(photograph))
    assert code == 74
    assert "holds no complete checkpoint" in err


def test_a_checkpoint_is_named_by_its_step(arlow, store: Store, photograph: Path) -> None:
    save_checkpoint(store, tiny_run(), 20)
    for options, step in (((), 20), (("--step", "10"), 10)):
        assert arlow("reconstruct", store.url, str(photograph), *options)[0] == 0
        with Image.open(f"{photograph.stem}-reconstruction.png") as image:
            assert f"after step {step}" in image.info["Description"]
