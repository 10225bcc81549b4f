"""`arlow export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from arlow_trainer.checkpoint.export import TOWER, WEIGHTS, fixed_files, weights_file
from arlow_trainer.engine import (
    MASTER,
    MOMENTS,
    Fragment,
    OptimizerShard,
    build_autoencoder,
    shard_name,
)
from arlow_trainer.model import ArlowImageProcessor
from arlow_trainer.storage.store import Store
from support.stored_run import save_checkpoint, tiny_run


def test_the_newest_or_the_given_checkpoint_is_exported(
    arlow, store: Store, tmp_path: Path
) -> None:
    save_checkpoint(store, tiny_run(), 20)
    for options, step in (((), 20), (("--step", "10"), 10)):
        target = tmp_path / f"export-{step}"
        code, out, _ = arlow("export", store.url, "--out", str(target), *options)
        assert (code, out) == (0, f"checkpoint-{step}: wrote 2 files to {target}\n")
        weights = store.read_bytes(f"checkpoint-{step}/{TOWER}/{WEIGHTS}")
        assert (target / TOWER / WEIGHTS).read_bytes() == weights


def test_a_damaged_newest_checkpoint_is_passed_over(arlow, store: Store, tmp_path: Path) -> None:
    save_checkpoint(store, tiny_run(), 20)
    key = f"checkpoint-20/{TOWER}/{WEIGHTS}"
    store.write_bytes(key, store.read_bytes(key)[:-1] + b"x")
    code, out, _ = arlow("export", store.url, "--out", str(tmp_path / "out"))
    assert code == 0
    assert out.splitlines()[-1].startswith("checkpoint-10: ")


def test_a_run_without_checkpoints_is_reported(arlow, tmp_path: Path) -> None:
    code, _, err = arlow("export", str(tmp_path / "none"), "--out", str(tmp_path / "out"))
    assert code == 74
    assert f"{tmp_path}/none holds no complete checkpoint" in err


def test_the_card_of_an_earlier_version_is_exported_without_credentials(
    arlow, store: Store, tmp_path: Path
) -> None:
    card = b"| Images | `http://user:SECRET@host/x`, split `train` |\n"
    save_checkpoint(store, tiny_run(), 20, instead={"README.md": card})
    assert arlow("export", store.url, "--out", str(tmp_path / "out"))[0] == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert text == "| Images | `http://***@host/x`, split `train` |\n"


def test_the_card_has_the_checkpoints_probes_and_a_licence(
    arlow, store: Store, tmp_path: Path
) -> None:
    lines = [
        {"data": "flowers", "method": "linear", "step": step, "accuracy": step / 100}
        for step in (10, 20)
    ]
    store.write_bytes("probe.jsonl", b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    out = tmp_path / "out"
    assert arlow("export", store.url, "--out", str(out), "--license", "mit")[0] == 0
    text = (out / "README.md").read_text()
    assert "| `flowers` | linear | 10.0 % |" in text
    assert "20.0 %" not in text
    assert "\nlicense: mit\n" in text


def test_code_that_this_version_does_not_write_is_named(
    arlow, store: Store, tmp_path: Path
) -> None:
    run = tiny_run()
    own = fixed_files(build_autoencoder(run.spec.training).tower, run.spec.training.model)
    code = f"{TOWER}/modeling_arlow.py"
    config = json.loads(own[f"{TOWER}/config.json"])
    config["auto_map"]["AutoModel"] = "somebody/else--modeling_arlow.ArlowVLVisionModel"
    for step, changed in (
        (20, {}),
        (30, {code: own[code] + b"# changed"}),
        (40, {f"{TOWER}/config.json": json.dumps(config).encode()}),
        (50, {f"{TOWER}/more.py": b"import os"}),
    ):
        save_checkpoint(store, run, step, instead={**own, **changed})
        ended, _, err = arlow("export", store.url, "--out", str(tmp_path / str(step)))
        assert ended == 0
        if not changed:
            assert err == ""
            continue
        [line] = err.splitlines()
        assert line.startswith(f"warning: checkpoint-{step}: its code is not what this version")
        assert f"writes: {next(iter(changed))}; trust_remote_code=True would run it" in line


def test_a_run_in_half_precision_exports_its_float32_weights(
    arlow, store: Store, tmp_path: Path
) -> None:
    run = tiny_run()
    module = build_autoencoder(run.spec.training)
    masters = {name: value.detach().clone() for name, value in module.named_parameters()}
    flat = torch.cat([value.flatten() for value in masters.values()])
    fragments, offset = [], 0
    for name, value in masters.items():
        fragments.append(Fragment(name, 0, 0, value.numel(), offset))
        offset += value.numel()
    tensors = {f"0.{key}": flat.clone() for key in (MASTER, *MOMENTS)}
    instead = {shard_name(0, 1): OptimizerShard(tensors, fragments, 1).save}
    own = fixed_files(module.tower.half(), run.spec.training.model)
    weights = weights_file(module.tower.state_dict())
    save_checkpoint(
        store, run, 20, dtype=torch.float16, instead=own | instead | {f"{TOWER}/{WEIGHTS}": weights}
    )
    for option, kind in (((), torch.float32), (("--dtype", "bfloat16"), torch.bfloat16)):
        target = tmp_path / str(kind)
        code, _, err = arlow("export", store.url, "--out", str(target), "--step", "20", *option)
        assert code == 0, err
        exported = load_file(target / TOWER / WEIGHTS)
        for name, value in exported.items():
            assert torch.equal(value, masters[f"tower.{name}"].to(kind)), name
        for folder in (target, target / TOWER):
            config = json.loads((folder / "config.json").read_bytes())
            assert config["dtype"] == str(kind).removeprefix("torch.")


def test_where_to_is_to_be_said(arlow, store: Store) -> None:
    code, _, err = arlow("export", store.url)
    assert code == 78
    assert "give --out DIR, or --push OWNER/NAME" in err


def test_a_push_without_network_is_said_in_words(arlow, store: Store) -> None:
    code, _, err = arlow("export", store.url, "--push", "owner/name")
    assert code == 74
    assert "--push owner/name: HF_HUB_OFFLINE is set" in err
    code, _, err = arlow("export", store.url, "--push", "no name/at all")
    assert code == 78
    assert "write it as OWNER/NAME" in err


def test_a_folder_and_a_push_are_exported_once(
    arlow, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arlow_trainer.checkpoint import export

    made: list[str] = []
    real = export.export

    def counted(*arguments: Any, **named: Any) -> list[str]:
        made.append(named["out"].url)
        return real(*arguments, **named)

    assert arlow("export", store.url, "--out", str(tmp_path / "alone"))[0] == 0
    monkeypatch.setattr(export, "export", counted)
    both = tmp_path / "both"
    both.mkdir()
    (both / "mine.txt").write_text("not to be pushed")
    code, out, err = arlow("export", store.url, "--out", str(both), "--push", "owner/name")
    assert code == 74
    assert "HF_HUB_OFFLINE" in err
    assert f"files to {both}" in out
    assert len(made) == 1
    assert made[0] != str(both)
    written = {
        folder: {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "mine.txt"
        }
        for folder in (tmp_path / "alone", both)
    }
    assert written[both] == written[tmp_path / "alone"]


def test_programs_compute_what_the_tower_does(arlow, store: Store, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'arlow-pretrain[onnx]'")
    import onnxruntime

    run = tiny_run()
    module = build_autoencoder(run.spec.training)
    own = fixed_files(module.tower, run.spec.training.model)
    tower = save_checkpoint(store, run, 20, instead=own).tower.eval()
    target = tmp_path / "tower"
    code, out, err = arlow("export", store.url, "--out", str(target), "--step", "20", "--onnx")
    assert code == 0, err
    assert (len(out.splitlines()), err) == (1, "")
    session = onnxruntime.InferenceSession(target / "onnx" / "model.onnx")
    program = torch.export.load(target / "torch_export" / "model.pt2").module()
    names = ["last_hidden_state", "pooler_output", "deepstack_features_0"]
    assert [each.name for each in session.get_outputs()] == names
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("pixel_values", ["items", 64, 96])
    picture = ArlowImageProcessor.from_pretrained(target)(
        images=Image.linear_gradient("L").resize((32, 32)), do_resize=False, return_tensors="pt"
    )["pixel_values"].view(1, 64, 96)
    for pixels in (picture, torch.randn(5, 64, 96)):
        items = len(pixels)
        with torch.no_grad():
            seen = tower(pixels, torch.tensor([[1, 8, 8]] * items), return_dict=True)
        assert seen.last_hidden_state is not None
        expected = [seen.last_hidden_state.view(items, 16, 32), seen.pooler_output]
        expected += [each.view(items, 16, 32) for each in seen.deepstack_features or ()]
        of_onnx = map(torch.from_numpy, session.run(None, {"pixel_values": pixels.numpy()}))
        for outputs in (of_onnx, program(pixels)):
            for output, right in zip(outputs, expected, strict=True):
                torch.testing.assert_close(output, right, rtol=1e-4, atol=1e-4)


def test_what_programs_cannot_be_is_said(arlow, store: Store, tmp_path: Path) -> None:
    options = ("--out", str(tmp_path / "tower"), "--onnx", "--dtype", "float16")
    code, _, err = arlow("export", store.url, *options)
    assert (code, "--onnx writes float32 weights: leave --dtype float16 out" in err) == (78, True)
