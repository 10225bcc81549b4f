"""Commands on run folders that somebody else crafted: a line that names the file, no traceback."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest
from PIL import Image

from arlow_trainer.checkpoint.contents import content_problems
from arlow_trainer.checkpoint.reader import newest_valid
from arlow_trainer.checkpoint.training_state import TRAINING_STATE
from arlow_trainer.storage.store import Store
from support.crafted_runs import CRAFTED
from support.crafting import ESCAPES, STEP, Crafted, with_file
from support.stored_run import save_checkpoint, tiny_run

COMMANDS = ("ls", "verify", "report", "reconstruct", "export", "watch", "curves")
MAX_GROWTH_KIB = 2**20


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, a status and a history."""
    store = Store(str(tmp_path_factory.mktemp("real") / "tiny-run"))
    for step in (10, STEP):
        save_checkpoint(store, tiny_run(), step)
    store.write_bytes("status.json", b'{"run": "tiny-run", "phase": "training", "step": 20}')
    store.write_bytes("history.jsonl", b'{"step": 10, "time": "t", "loss": 0.5}\n')
    return Path(store.url)


def arguments(command: str, run: str, folder: Path) -> tuple[str, ...]:
    image = folder / "image.png"
    if not image.exists():
        Image.new("RGB", (40, 40), "red").save(image)
    return {
        "ls": ("checkpoints", "ls", run),
        "verify": ("checkpoints", "verify", run),
        "report": ("report", run, "--out", str(folder / "report.html")),
        "reconstruct": ("reconstruct", run, str(image), "--out", str(folder / "r.png")),
        "export": ("export", run, "--out", str(folder / "export")),
        "watch": ("watch", run, "--once"),
        "curves": ("curves", run, "--out", str(folder / "curves.png")),
    }[command]


@pytest.mark.parametrize("crafted", CRAFTED, ids=lambda each: each.name)
def test_every_command_on_a_crafted_run(
    arlow, real_run: Path, tmp_path: Path, crafted: Crafted
) -> None:
    run = tmp_path / "tiny-run"
    shutil.copytree(real_run, run)
    crafted.make(run)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command in COMMANDS:
        code, out, err = arlow(*arguments(command, str(run), tmp_path))
        said = out + err
        assert code in (0, 74), (command, said)
        assert "internal error" not in said, (command, said)
        assert not set("\x1b\x9b") & set(said), command
        refused = command in crafted.refused or (command == "verify" and crafted.damaged != "")
        assert (code == 74) == refused, (command, said)
        if crafted.damaged and command in ("ls", "verify"):
            [line] = [each for each in said.splitlines() if crafted.damaged in each]
            assert str(STEP) in line
        if command in crafted.refused:
            [line] = err.splitlines()
            assert crafted.file in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB
    store, skipped = Store(str(run)), []
    newest = newest_valid(
        store, on_skip=lambda info, why: skipped.append((info.step, why)), contents=content_problems
    )
    assert newest is not None
    assert newest.step == (10 if crafted.damaged else STEP)
    if crafted.damaged:
        [(step, why)] = skipped
        assert step == STEP
        assert crafted.damaged in why


@pytest.mark.parametrize("fits", [False, True])
def test_a_file_that_is_cut_anywhere_is_passed_over(
    real_run: Path, tmp_path: Path, fits: bool
) -> None:
    """Also where the manifest fits the rest of it; but then a card may say anything."""
    run = tmp_path / "tiny-run"
    shutil.copytree(real_run, run)
    folder = run / f"checkpoint-{STEP}"
    manifest = (folder / "manifest.json").read_bytes()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        name, content = str(path.relative_to(folder)), path.read_bytes()
        if fits and name in ("manifest.json", "README.md"):
            continue
        for length in {0, 1, 8, 9, len(content) // 3, len(content) // 2, len(content) - 2}:
            if fits:
                with_file(name, content[:length])(run)
            else:
                path.write_bytes(content[:length])
            skipped: list[str] = []
            newest = newest_valid(
                Store(str(run)),
                on_skip=lambda _, why, skipped=skipped: skipped.append(why),
                contents=content_problems,
            )
            assert newest is not None
            assert newest.step == 10, (name, length)
            assert name in skipped[0]
            path.write_bytes(content)
            (folder / "manifest.json").write_bytes(manifest)


def test_a_given_step_that_is_damaged_is_refused(arlow, real_run: Path, tmp_path: Path) -> None:
    shutil.copytree(real_run, run := tmp_path / "tiny-run")
    [nested] = [each for each in CRAFTED if each.name == "state nested"]
    nested.make(run)
    for command in ("report", "reconstruct", "export"):
        step = ("--step", str(STEP))
        code, _, err = arlow(*arguments(command, str(run), tmp_path), *step)
        assert code == 74
        [line] = err.splitlines()
        assert f"checkpoint-{STEP}/{TRAINING_STATE}" in line
        assert "nested deeper" in line


@pytest.mark.parametrize("name", [b"[/old]", b"\xff\xfe", ESCAPES[:-1].encode() + b"\x1b]0;t\x07"])
def test_every_command_on_a_run_of_any_name(
    arlow, real_run: Path, tmp_path: Path, name: bytes
) -> None:
    run = os.fsdecode(os.path.join(os.fsencode(tmp_path), name.replace(b"/", b"")))
    shutil.copytree(real_run, run)
    for command in COMMANDS:
        code, out, err = arlow(*arguments(command, run, tmp_path))
        assert code == 0, (command, out + err)
        assert not set("\x1b\x9b\x07") & set(out + err), command
