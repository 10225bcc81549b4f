"""Small changes of a real run's folder, as somebody else might make them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS
from arlow_trainer.checkpoint.layout import FileRecord, Manifest
from arlow_trainer.checkpoint.training_state import TRAINING_STATE

STEP = 20
"""Step of the newest checkpoint of the real run, which is the one that is changed."""
DEEP = b"[" * 100_000
DIGITS = b"9" * 5000
ESCAPES = "[/old]\x1b[31m\r\n\x9b2J $\\nope$ \ud800"
BOMB_SIDE = 19_600
TOWER_WEIGHTS, DECODER_WEIGHTS = f"{TOWER}/{WEIGHTS}", f"{DECODER}/{WEIGHTS}"
SHARD = "optimizer/rank-00000-of-00001.safetensors"


@dataclass(frozen=True)
class Crafted:
    """A change of a run's folder.

    Attributes:
        name: of the change.
        make: makes it, in the run's folder.
        damaged: the file of the newest checkpoint that is damaged by it, if one is.
        refused: the commands that cannot do their work, and name `file`.
        file: the file outside the checkpoints that is changed.
    """

    name: str
    make: Callable[[Path], None]
    damaged: str = ""
    refused: tuple[str, ...] = ()
    file: str = ""


def checkpoint(run: Path, step: int = STEP) -> Path:
    return run / f"checkpoint-{step}"


def with_file(name: str, content: bytes | None, step: int = STEP) -> Callable[[Path], None]:
    """Replaces or removes a file of a checkpoint, under a manifest that fits it."""

    def make(run: Path) -> None:
        folder = checkpoint(run, step)
        manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
        files = dict(manifest.files)
        if content is None:
            (folder / name).unlink()
            del files[name]
        else:
            (folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            files[name] = FileRecord(size=len(content), sha256=sha256)
        changed = manifest.model_copy(update={"files": files})
        (folder / "manifest.json").write_bytes(changed.to_bytes())

    return make


def with_manifest(**changes: Any) -> Callable[[Path], None]:
    """Changes fields of the newest manifest, whose digest fits them."""

    def make(run: Path) -> None:
        path = checkpoint(run) / "manifest.json"
        content = json.loads(path.read_bytes()) | changes
        del content["digest"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
        path.write_text(json.dumps(content))

    return make


def with_state(**changes: Any) -> Callable[[Path], None]:
    """Changes fields of the newest training state."""

    def make(run: Path) -> None:
        state = json.loads((checkpoint(run) / TRAINING_STATE).read_bytes()) | changes
        with_file(TRAINING_STATE, json.dumps(state).encode())(run)

    return make


def with_model(**changes: Any) -> Callable[[Path], None]:
    """Changes the saved run's model."""

    def make(run: Path) -> None:
        state = json.loads((checkpoint(run) / TRAINING_STATE).read_bytes())
        state["run"]["spec"]["training"]["model"] |= changes
        with_file(TRAINING_STATE, json.dumps(state).encode())(run)

    return make


def written(name: str, content: bytes) -> Callable[[Path], None]:
    """Writes a file of the run's folder."""

    def make(run: Path) -> None:
        path = Path(os.fsdecode(os.path.join(os.fsencode(run), os.fsencode(name))))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return make


def sparse(name: str, size: int) -> Callable[[Path], None]:
    """Makes a file of any size that takes no space."""

    def make(run: Path) -> None:
        with (run / name).open("wb") as file:
            file.truncate(size)

    return make


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: Any, first: Any, last: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def fifo(name: str) -> Callable[[Path], None]:
    """Makes a file that never opens, in place of one."""

    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return make


def link(name: str, target: str) -> Callable[[Path], None]:
    """Makes a link in place of a file."""

    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(target)

    return make


def bomb(run: Path) -> None:
    (run / "pictures").mkdir()
    picture = Image.new("1", (BOMB_SIDE, BOMB_SIDE))
    picture.save(run / "pictures" / f"step-{STEP}-image.png")


def described(run: Path) -> None:
    (run / "pictures").mkdir()
    text = PngInfo()
    text.add_itxt("Description", "[/old]\x1b[31m <script>alert(1)</script> $\\nope$")
    Image.new("RGB", (60, 20)).save(run / "pictures" / f"step-{STEP}-image.png", pnginfo=text)


def names(run: Path) -> None:
    root = os.fsencode(run)
    for name in (b"checkpoint-\xff", b"checkpoint-30\n", b"checkpoint-" + b"9" * 200, b"pictures"):
        os.mkdir(os.path.join(root, name))
    for name in (b"\xff\x1b[31m", b"pictures/step-\xff-image.png", b"events-\xd9\xa3.jsonl"):
        Path(os.fsdecode(os.path.join(root, name))).write_bytes(b"x")
    (run / "pictures" / "step-٣-image.png").write_bytes(b"x")
    (run / f"events-{'9' * 200}.jsonl").write_bytes(b"x")


def lines(*records: Any) -> bytes:
    return b"\n".join(
        each if isinstance(each, bytes) else json.dumps(each).encode() for each in records
    )
