"""An export is one Hugging Face repository: what a plain transformers makes of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from arlow_trainer.checkpoint.code_bundle import bundled
from arlow_trainer.checkpoint.export import TOWER, WEIGHTS, fixed_files
from arlow_trainer.config import ModelSection
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from export_reader import read_without_project

SIZES: dict[str, int] = {"depth": 6, "embed_dim": 48, "num_heads": 2, "hidden_size": 32}


def write_export(folder: Path) -> ArlowVLVisionModel:
    torch.manual_seed(0)
    tower = ArlowVLVisionModel(ArlowVisionConfig(**SIZES)).eval()
    for name, content in fixed_files(tower, ModelSection(**SIZES)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    save_file(tower.state_dict(), folder / TOWER / WEIGHTS, metadata={"format": "pt"})
    return tower


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(folder / "tower")
    return folder


def test_no_file_imports_another(exported: Path) -> None:
    """Older loaders find nothing that an import imports, nor what lies beside a link's target."""
    code = {path.name: path.read_text() for path in (exported / "tower").glob("*.py")}
    assert set(code) == {
        "image_processing_arlow.py",
        "modeling_arlow.py",
        "processing_arlow.py",
        "video_processing_arlow.py",
    }
    assert not re.findall(r"^\s*from \.", "\n".join(code.values()), re.MULTILINE)


def test_two_things_of_one_name_are_not_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import arlow_trainer.model

    (tmp_path / "a.py").write_text("from .b import g\n\ndef f() -> None:\n    g()\n")
    (tmp_path / "b.py").write_text("def f() -> None: ...\n\ndef g() -> None: ...\n")
    monkeypatch.setattr(arlow_trainer.model, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match="a and b both define f"):
        bundled("a")


def test_the_folder_is_tower_and_processor(exported: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((90, 60)).save(exported / "photo.png")
    read_without_project(
        exported,
        """
        import torch
        from PIL import Image
        from transformers import AutoModel, AutoProcessor
        trusted = {"trust_remote_code": True}
        tower = AutoModel.from_pretrained("tower", **trusted).eval()
        processor = AutoProcessor.from_pretrained("tower", **trusted)
        photo = Image.open("photo.png")
        inputs = processor(images=[photo, photo.rotate(90, expand=True)], return_tensors="pt")
        with torch.no_grad():
            seen = tower(**inputs, output_hidden_states=True)
            tokens, deepstack = tower(inputs["pixel_values"], inputs["image_grid_thw"])
        assert torch.equal(seen.last_hidden_state, tokens) and tokens.shape == (12, 32)
        assert all(map(torch.equal, seen.deepstack_features, deepstack)) and len(deepstack) == 3
        mean = torch.stack([tokens[:6].mean(0), tokens[6:].mean(0)])
        assert torch.allclose(seen.pooler_output, mean)
        assert [tuple(each.shape) for each in seen.hidden_states] == [(48, 48)] * 7
        films = processor(videos=[[photo] * 4], return_tensors="pt")
        with torch.no_grad():
            assert tower(**films).pooler_output.shape == (1, 32)
            both = tower(**inputs, **films)
        assert torch.equal(both.last_hidden_state[:12], tokens)
        assert both.pooler_output.shape == (3, 32)
        assert tower(**processor(images=[], return_tensors="pt")).last_hidden_state.shape == (0, 32)

        alone = AutoModel.from_pretrained("tower/vision_encoder", **trusted)
        for name, weight in tower.state_dict().items():
            assert torch.equal(alone.state_dict()[name], weight)

        for options in ({"dtype": torch.bfloat16}, {"attn_implementation": "eager"}):
            other = AutoModel.from_pretrained("tower", **trusted, **options).eval()
            with torch.no_grad():
                close = other(**inputs).last_hidden_state
            atol = 1e-5 if other.dtype == torch.float32 else 0.1
            assert torch.allclose(close.float(), tokens, atol=atol)

        tower.save_pretrained("again")
        processor.save_pretrained("again")
        again = AutoModel.from_pretrained("again", **trusted).eval()
        with torch.no_grad():
            assert torch.equal(again(**inputs).last_hidden_state, tokens)
        AutoProcessor.from_pretrained("again", **trusted)
        """,
    )


def test_the_pipeline_that_the_card_promises(exported: Path) -> None:
    Image.linear_gradient("L").resize((90, 60)).save(exported / "photo.png")
    read_without_project(
        exported,
        """
        from transformers import pipeline
        extract = pipeline("image-feature-extraction", model="tower", trust_remote_code=True)
        (features,) = extract("photo.png", pool=True)
        assert len(features) == 32
        """,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fine_tuning_step(exported: Path, dtype: str) -> None:
    read_without_project(
        exported,
        f"""
        import torch
        from PIL import Image
        from transformers import AutoModel, AutoProcessor
        trusted = {{"trust_remote_code": True}}
        tower = AutoModel.from_pretrained("tower", dtype=torch.{dtype}, **trusted).train()
        processor = AutoProcessor.from_pretrained("tower", **trusted)
        tower.gradient_checkpointing_enable()
        inputs = processor(images=[Image.new("RGB", (60, 60))] * 2, return_tensors="pt")
        tower(**inputs).pooler_output.float().square().mean().backward()
        torch.optim.SGD(tower.parameters(), 0.1).step()
        used = [p for n, p in tower.named_parameters() if "deepstack" not in n]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in used)
        """,
    )


def test_two_exports_in_one_process_run_their_own_code(exported: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_export(tmp_path / name / "tower")
    # Another version of the code, in a repository of the same name and configuration.
    folder = tmp_path / "two" / "tower"
    for path in folder.rglob("modeling_arlow.py"):
        path.write_text(path.read_text() + "\n\nVERSION = 2\n")
    read_without_project(
        tmp_path,
        """
        import sys
        from transformers import AutoModel
        towers = [
            AutoModel.from_pretrained(f"{name}/tower", trust_remote_code=True)
            for name in ("one", "two")
        ]
        versions = [getattr(sys.modules[type(t).__module__], "VERSION", 1) for t in towers]
        assert versions == [1, 2], versions
        """,
    )


def test_raw_pixels_are_refused(exported: Path) -> None:
    tower = ArlowVLVisionModel(ArlowVisionConfig(**SIZES))
    with pytest.raises(ValueError, match=r"pixels are torch\.uint8: the tower takes normalised"):
        tower(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="are missing"):
        tower()


def test_the_snippets_of_the_page_about_the_tower_run(exported: Path) -> None:
    Image.linear_gradient("L").resize((90, 60)).save(exported / "photo.png")
    page = (Path(__file__).parents[2] / "docs" / "using-the-tower.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 7
    read_without_project(exported, "\n".join(snippets))
