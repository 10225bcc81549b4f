"""What users keep of a checkpoint: the tower, its processors and the model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from arlow_trainer.checkpoint.card import model_card
from arlow_trainer.checkpoint.code_bundle import bundled
from arlow_trainer.checkpoint.masters import master_weights, weights_dtype
from arlow_trainer.checkpoint.programs import write_programs
from arlow_trainer.checkpoint.reader import download, read_manifest
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState
from arlow_trainer.config import ArlowPretrain, ModelSection
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.model import (
    ArlowImageProcessor,
    ArlowProcessor,
    ArlowVideoProcessor,
    ArlowVisionConfig,
    ArlowVLVisionModel,
)
from arlow_trainer.model.geometry import Grid
from arlow_trainer.storage.store import Store

TOWER = "vision_encoder"
IMAGE_PROCESSOR = "image_processor"
VIDEO_PROCESSOR = "video_processor"
PROCESSOR = "processor_config.json"
CARD = "README.md"
DECODER = "decoder"
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
CONFIG = "config.json"
_CONFIGURATION, _MODELING = "configuration_arlow", "modeling_arlow"


def weights_file(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    """Returns a writer of tensors as a safetensors file that transformers reads."""
    return lambda path: save_file(tensors, path, metadata={"format": "pt"})


def fixed_files(tower: ArlowVLVisionModel, model: ModelSection) -> dict[str, bytes]:
    """Returns every exported file that does not change during training, by its path.

    That is the tower's config.json and code, so that `AutoModel.from_pretrained(folder,
    trust_remote_code=True)` needs nothing of this project, and the processors. The folder is one
    repository, which loads as tower and as processor; `vision_encoder/` holds the weights, and
    loads by itself too.
    """
    image, video = (_fitting(kind, model) for kind in (ArlowImageProcessor, ArlowVideoProcessor))
    # Its bar would count zero shards: the weights are written elsewhere.
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tower.save_pretrained(folder / TOWER, state_dict={})
        # In folders of their own: `ArlowProcessor` alone would nest both in one file.
        image.save_pretrained(folder / IMAGE_PROCESSOR)
        video.save_pretrained(folder / VIDEO_PROCESSOR)
        tower.save_pretrained(folder, state_dict={})
        ArlowProcessor(image, video).save_pretrained(folder)
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != WEIGHTS)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}
    files[INDEX] = _index(tower)
    return _with_own_code(files)


def _index(tower: ArlowVLVisionModel) -> bytes:
    """Returns the index that leads from the folder's top to the weights in `vision_encoder/`."""
    state = tower.state_dict()
    size = sum(tensor.nbytes for tensor in state.values())
    weights = {name: f"{TOWER}/{WEIGHTS}" for name in sorted(state)}
    return json.dumps({"metadata": {"total_size": size}, "weight_map": weights}, indent=1).encode()


def _with_own_code(files: dict[str, bytes]) -> dict[str, bytes]:
    """Returns files whose code is bundled, the tower's configuration with the tower.

    In one file: of two exports in one process whose configurations' files were equal, transformers
    would run the first one's tower for both.
    """
    kept = {}
    for name, content in files.items():
        stem = Path(name).stem
        if not name.endswith(".py"):
            kept[name] = content
        elif stem.endswith("_arlow") and stem != _CONFIGURATION:  # others are what these import
            kept[name] = bundled(stem).encode()
    for name in (CONFIG, f"{TOWER}/{CONFIG}"):
        config = json.loads(kept[name])
        config["auto_map"] = {
            kind: address.replace(_CONFIGURATION, _MODELING)
            for kind, address in config["auto_map"].items()
        }
        kept[name] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    return kept


def _fitting(kind: Any, model: ModelSection) -> Any:
    """Returns a processor that makes as many tokens of an image as with its default patches.

    Its bounds are areas in pixels for those patches: smaller patches would make many more tokens.
    """
    side = model.patch_size * model.spatial_merge_size
    scale = (side / (kind.patch_size * kind.merge_size)) ** 2
    return kind(
        patch_size=model.patch_size,
        temporal_patch_size=model.temporal_patch_size,
        merge_size=model.spatial_merge_size,
        size={name: max(side**2, round(area * scale)) for name, area in kind.size.items()},
    )


def decoder_config(run: ArlowPretrain) -> bytes:
    """Returns the decoder's configuration as it is stored beside its weights."""
    return (json.dumps(run.spec.training.mae.model_dump(by_alias=True), indent=1) + "\n").encode()


def card_file(run: ArlowPretrain, state: TrainingState, parameters: int) -> bytes:
    """Returns the model card of a checkpoint."""
    return model_card(run, state, parameters).encode()


def exported_names(store: Store, step: int) -> list[str]:
    """Returns the files of a checkpoint that an export copies. Raises StoreError."""
    manifest = read_manifest(store, step)
    prefixes = (f"{TOWER}/", f"{IMAGE_PROCESSOR}/", f"{VIDEO_PROCESSOR}/")
    names = [n for n in manifest.files if n.startswith(prefixes) or "/" not in n]
    return [n for n in names if n != TRAINING_STATE]


def export(
    store: Store,
    step: int,
    out: Store,
    dtype: torch.dtype | None = None,
    complete_card: Callable[[str], str] = str,
    program_grid: Grid | None = None,
) -> list[str]:
    """Copies what users keep of a checkpoint to a folder or URL; returns the files' names.

    Their paths are those in the checkpoint: `vision_encoder/`, `image_processor/`,
    `video_processor/`, `processor_config.json`, the model card, and what makes the folder one
    repository. Every file is checked against the manifest. The weights are of `dtype`: unset,
    float32, which a run in half precision has in its optimiser's state. `complete_card` is given
    the model card and returns the one to write. With `program_grid`, programs for items of that
    grid are written as well (`write_programs`), of float32 weights.

    Raises StoreError when the checkpoint is missing or damaged, or the target cannot be written.
    """
    names = exported_names(store, step)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = dict(zip(names, download(store, step, names, folder), strict=True))
        _convert(store, step, paths, dtype, folder)
        if program_grid is not None:
            tower = _tower(paths)
            paths |= {each: folder / each for each in write_programs(tower, program_grid, folder)}
        for name, path in paths.items():
            if name == CARD:
                # Earlier versions accepted credentials in a manifest's URLs, and the card has them.
                text = complete_card(path.read_text("utf-8", "replace"))
                path.write_text(redact_urls(text), "utf-8")
            out.put_file(path, name)
    return list(paths)


def _tower(paths: dict[str, Path]) -> ArlowVLVisionModel:
    """Returns the tower of exported files."""
    config = json.loads(paths[f"{TOWER}/{CONFIG}"].read_bytes())
    tower = ArlowVLVisionModel(ArlowVisionConfig.from_dict(config | {"dtype": "float32"}))
    tower.load_state_dict(load_file(paths[f"{TOWER}/{WEIGHTS}"]), assign=True)
    return tower


def _convert(
    store: Store, step: int, paths: dict[str, Path], dtype: torch.dtype | None, folder: Path
) -> None:
    """Rewrites the weights among the files, and the configurations that name their type."""
    weights = paths[f"{TOWER}/{WEIGHTS}"]
    stored, wanted = weights_dtype(weights), dtype or torch.float32
    if stored == wanted:
        return
    if stored == torch.float32:
        tensors = load_file(weights)
    else:
        shards = [n for n in read_manifest(store, step).files if n.startswith("optimizer/")]
        tensors = master_weights(weights, download(store, step, shards, folder))
    # Not over the file itself: it may be the checkpoint's own, by a link.
    converted = folder / "converted.safetensors"
    cast = {key: tensor.to(wanted) for key, tensor in tensors.items()}
    weights_file(cast)(converted)
    paths[f"{TOWER}/{WEIGHTS}"] = converted
    for name in (CONFIG, f"{TOWER}/{CONFIG}"):
        if name in paths:
            config = json.loads(paths[name].read_bytes())
            config["dtype"] = str(wanted).removeprefix("torch.")
            paths[name].write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    if INDEX in paths:
        index = json.loads(paths[INDEX].read_bytes())
        index["metadata"]["total_size"] = sum(tensor.nbytes for tensor in cast.values())
        paths[INDEX].write_text(json.dumps(index, indent=1), "utf-8")
