"""Parts of a safetensors file, read in parallel and straight into tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_cases import training
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from arlow_trainer.engine import build_autoencoder, build_empty_autoencoder, shard_files
from arlow_trainer.engine.shard_files import ShardFile, Span

TENSORS = {"0.fp32": torch.arange(1000.0), "1.fp32": -torch.arange(77.0)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("shard") / "a.safetensors"
    save_file(TENSORS | {"half": torch.zeros(4).half()}, file, metadata={"adam_step": "7"})
    return file


@given(key=st.sampled_from(sorted(TENSORS)), data=st.data())
def test_any_span_is_what_was_written(path: Path, key: str, data: st.DataObject) -> None:
    size = len(TENSORS[key])
    start = data.draw(st.integers(0, size))
    count = data.draw(st.integers(0, size - start))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_files, "CHUNK_BYTES", data.draw(st.sampled_from([4, 64, 2**20])))
        into = torch.full((count + 2,), 0.5)
        ShardFile(path).read([Span(key, start, into[1:-1])])
    assert torch.equal(into[1:-1], TENSORS[key][start : start + count])
    assert into[0] == into[-1] == 0.5


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (("2.fp32", 0, 1), "no float32 tensor 2.fp32"),
        (("half", 0, 1), "no float32 tensor half"),
        (("1.fp32", 70, 8), "fewer elements"),
        (("1.fp32", -1, 2), "fewer elements"),
    ],
)
def test_what_is_not_there(path: Path, span: tuple[str, int, int], words: str) -> None:
    key, start, count = span
    with pytest.raises(ValueError, match=words):
        ShardFile(path).read([Span(key, start, torch.empty(count))])


def test_files_that_are_none(path: Path, tmp_path: Path) -> None:
    assert ShardFile(path).metadata == {"adam_step": "7"}
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(ValueError, match="ends too early"):
        ShardFile(cut).read([Span(key, 0, torch.empty(len(TENSORS[key]))) for key in TENSORS])
    for content in (b"", b"\xff" * 100):
        cut.write_bytes(content)
        with pytest.raises(ValueError, match=r"JSON|header|Expecting"):
            ShardFile(cut)


def test_an_empty_module_is_the_drawn_one_without_its_weights() -> None:
    drawn = build_autoencoder(training())
    before = torch.random.get_rng_state()
    empty = build_empty_autoencoder(training(), torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(value.device.type == "cpu" for value in empty.state_dict().values())
    assert not list(empty.buffers()), "they would be undefined, and no checkpoint has them"
    empty.load_state_dict(drawn.state_dict())
    assert all(
        torch.equal(value, drawn.state_dict()[name]) for name, value in empty.state_dict().items()
    )
