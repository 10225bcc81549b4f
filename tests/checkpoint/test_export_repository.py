"""An export is one Hugging Face repository: what a plain transformers makes of it."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
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


def write_snapshot(hub: Path, folder: Path) -> None:
    """As the hub's cache has it: links to blobs, beside which no other file of the code lies."""
    (hub / "blobs").mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("1" * 40)
    for number, path in enumerate(each for each in folder.rglob("*") if each.is_file()):
        link = hub / "snapshots" / ("1" * 40) / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        (hub / "blobs" / str(number)).write_bytes(path.read_bytes())
        link.symlink_to(os.path.relpath(hub / "blobs" / str(number), link.parent))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(folder / "tower")
    write_snapshot(folder / "cache" / "hub" / "models--owner--name", folder / "tower")
    Image.linear_gradient("L").resize((90, 60)).save(folder / "photo.png")
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


# What users do, each part in a namespace of its own; all in one process, whose start takes longest.
PARTS = {
    "tower and processor": """
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

tower.set_attn_implementation("eager")
with torch.no_grad():
    assert torch.allclose(tower(**inputs).last_hidden_state, tokens, atol=1e-5)
tower.set_attn_implementation("sdpa")

tower.save_pretrained("again")
processor.save_pretrained("again")
again = AutoModel.from_pretrained("again", **trusted).eval()
with torch.no_grad():
    assert torch.equal(again(**inputs).last_hidden_state, tokens)
AutoProcessor.from_pretrained("again", **trusted)
""",
    "the pipeline that the card promises": """
from transformers import pipeline
extract = pipeline("image-feature-extraction", model="tower", trust_remote_code=True)
(features,) = extract("photo.png", pool=True)
assert len(features) == 32
""",
    "a fine-tuning step": """
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
trusted = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained("tower", **trusted)
inputs = processor(images=[Image.new("RGB", (60, 60))] * 2, return_tensors="pt")
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    tower = AutoModel.from_pretrained("tower", dtype=dtype, **trusted).train()
    tower.gradient_checkpointing_enable()
    tower(**inputs).pooler_output.float().square().mean().backward()
    torch.optim.SGD(tower.parameters(), 0.1).step()
    used = [p for n, p in tower.named_parameters() if "deepstack" not in n]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used), dtype
""",
    "a snapshot of the hub": """
from PIL import Image
from transformers import AutoModel, AutoProcessor
trusted = {"trust_remote_code": True}
tower = AutoModel.from_pretrained("owner/name", **trusted).eval()
processor = AutoProcessor.from_pretrained("owner/name", **trusted)
seen = tower(**processor(images=Image.open("photo.png"), return_tensors="pt"))
assert seen.pooler_output.shape == (1, 32)
""",
    "two exports run their own code": """
import sys
from transformers import AutoModel
towers = [
    AutoModel.from_pretrained(name, trust_remote_code=True) for name in ("tower", "two/tower")
]
versions = [getattr(sys.modules[type(t).__module__], "VERSION", 1) for t in towers]
assert versions == [1, 2], versions
""",
}


ON_DEVICES = """
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
trusted = {"trust_remote_code": True}
tower = AutoModel.from_pretrained("tower", **trusted).eval()
placed = AutoModel.from_pretrained("tower", device_map="auto", **trusted).eval()
inputs = AutoProcessor.from_pretrained("tower", **trusted)(
    images=Image.open("photo.png"), return_tensors="pt"
)
with torch.no_grad():
    expected = tower(**inputs).last_hidden_state
    seen = placed(**inputs.to(placed.device)).last_hidden_state
    assert torch.allclose(seen.cpu(), expected, atol=1e-5)
    # Some of the blocks on the disk, whose weights transformers looks for beside the index.
    sizes = {"cpu": sum(p.nbytes for p in tower.parameters()) // 2}
    parts = AutoModel.from_pretrained(
        "tower/vision_encoder",
        device_map="auto",
        max_memory=sizes,
        offload_folder="offloaded",
        **trusted,
    ).eval()
    assert "disk" in parts.hf_device_map.values(), parts.hf_device_map
    assert torch.allclose(parts(**inputs).last_hidden_state, expected, atol=1e-5)
"""


@pytest.fixture(scope="module")
def two_exports(exported: Path) -> Path:
    """Beside the export another version of its code, of the same name and configuration."""
    write_export(exported / "two" / "tower")
    for path in (exported / "two").rglob("modeling_arlow.py"):
        path.write_text(path.read_text() + "\n\nVERSION = 2\n")
    return exported


def do_what_users_do(folder: Path, before: str = "") -> None:
    parts = (f"exec(compile({part!r}, {name!r}, 'exec'), {{}})" for name, part in PARTS.items())
    read_without_project(folder, "\n".join((before, *parts)))


def test_what_users_do_with_an_export(two_exports: Path) -> None:
    do_what_users_do(two_exports)


@pytest.mark.parametrize("version", ["5.10.4", "5.12.1", "newest"])
def test_what_users_of_other_versions_do(two_exports: Path, version: str) -> None:
    packages = Path(os.environ.get("ARLOW_TRANSFORMERS", "/none")) / version
    if not packages.is_dir():
        pytest.skip(f"needs transformers {version}, which `make test-versions` installs")
    do_what_users_do(
        two_exports,
        f"sys.path.insert(0, {str(packages)!r})\n"
        f"import transformers\nassert transformers.__file__.startswith({str(packages)!r})\n"
        f"assert transformers.__version__ == {version!r} or {version!r} == 'newest'\n",
    )


def test_devices_are_chosen_by_accelerate(exported: Path) -> None:
    found = find_spec("accelerate")
    if found is None or found.origin is None:
        pytest.skip("needs the package accelerate: pip install accelerate")
    place = str(Path(found.origin).parents[1])
    read_without_project(exported, f"sys.path.append({place!r})\n{ON_DEVICES}")


def test_raw_pixels_are_refused(exported: Path) -> None:
    tower = ArlowVLVisionModel(ArlowVisionConfig(**SIZES))
    with pytest.raises(ValueError, match=r"pixels are torch\.uint8: the tower takes normalised"):
        tower(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="are missing"):
        tower()


def test_the_snippets_of_the_page_about_the_tower_run(exported: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "using-the-tower.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 8
    read_without_project(exported, "\n".join(snippets))
