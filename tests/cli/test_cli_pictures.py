"""`arlow reconstruct`, `arlow curves` and `arlow report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from arlow_trainer.cli import main
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def arlow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["arlow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_reconstruct_a_photograph_and_a_film(
    arlow, store: Store, photograph: Path, video_file: Path
) -> None:
    for path in (photograph, video_file):
        code, out, _ = arlow("reconstruct", str(path), "--checkpoint", store.url)
        assert code == 0
        assert f"the picture is in {path.stem}-reconstruction.png" in out
        assert "Hidden patches: PSNR " in out
        with Image.open(f"{path.stem}-reconstruction.png") as image:
            assert image.width > 700


def test_mask_and_seed_change_the_picture(arlow, store: Store, photograph: Path) -> None:
    seen = set()
    for options in ((), ("--seed", "1"), ("--mask-ratio", "0.5")):
        target = f"sub/{len(seen)}.png"
        url = f"{store.url}/checkpoint-10"
        code, _, _ = arlow(
            "reconstruct", str(photograph), "--checkpoint", url, "--out", target, *options
        )
        assert code == 0
        seen.add(Path(target).read_bytes())
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--mask-ratio", "1"), 78, "must hide some and not all"),
        (("--out", "picture.gif"), 78, "end it in .png"),
        (("--out", "/proc/picture.png"), 74, "/proc/picture.png: cannot be written"),
    ],
)
def test_wrong_options_are_told(
    arlow, store: Store, photograph: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = arlow("reconstruct", str(photograph), "--checkpoint", store.url, *options)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_a_file_that_is_no_picture_is_told(arlow, store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    path = str(tmp_path / "notes.txt")
    code, _, err = arlow("reconstruct", path, "--checkpoint", store.url)
    assert code == 65
    assert f"{path}: not an image that Pillow can read" in err


def test_a_file_that_is_not_there_is_told(arlow, store: Store, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "photo.jpg", "no such file"), (tmp_path, "is a folder")):
        code, out, err = arlow("reconstruct", str(path), "--checkpoint", store.url)
        assert (code, out) == (65, "")
        assert err == f"error: {path}: {why}; give a picture or a film\n"


def test_watching_what_is_no_run_is_told(arlow, tmp_path: Path) -> None:
    code, _, err = arlow("watch", str(tmp_path / "none"), "--once")
    assert code == 78
    assert f"{tmp_path}/none: no run there, no manifest of that name and no preset" in err


def test_a_url_without_checkpoints_is_told(arlow, photograph: Path, tmp_path: Path) -> None:
    code, _, err = arlow("reconstruct", str(photograph), "--checkpoint", str(tmp_path / "none"))
    assert code == 74
    assert "holds no complete checkpoint" in err


def test_curves_and_report(arlow, store: Store) -> None:
    code, _, err = arlow("curves", store.url)
    assert code == 74
    assert "holds no curve yet" in err
    points = [{"step": step, "time": "t", "loss": 1 / step} for step in (10, 20)]
    store.write_bytes(HISTORY_FILE, "\n".join(map(json.dumps, points)).encode())
    code, out, _ = arlow("curves", store.url)
    assert (code, out) == (0, "the curves are in curves.png\n")
    with Image.open("curves.png") as image:
        assert image.width > 1000
    code, out, _ = arlow("report", store.url)
    assert code == 0
    assert "the report is in report.html" in out
    assert Path("report.html").read_text().startswith("<!doctype html>")


def test_a_report_of_nothing_is_told(arlow, tmp_path: Path) -> None:
    code, _, err = arlow("report", str(tmp_path / "none"))
    assert code == 74
    assert "holds no run" in err
    assert not Path("report.html").exists()
