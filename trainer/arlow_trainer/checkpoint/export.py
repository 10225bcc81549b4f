"""What users keep of a checkpoint: the tower, its processors and the model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from arlow_trainer.checkpoint.card import model_card
from arlow_trainer.checkpoint.reader import download, read_manifest
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState
from arlow_trainer.config import ArlowPretrain, ModelSection
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.model import (
    ArlowImageProcessor,
    ArlowProcessor,
    ArlowVideoProcessor,
    ArlowVLVisionModel,
)
from arlow_trainer.storage.store import Store

TOWER = "vision_encoder"
IMAGE_PROCESSOR = "image_processor"
VIDEO_PROCESSOR = "video_processor"
PROCESSOR = "processor_config.json"
CARD = "README.md"
DECODER = "decoder"
WEIGHTS = "model.safetensors"


def weights_file(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    """Returns a writer of tensors as a safetensors file that transformers reads."""
    return lambda path: save_file(tensors, path, metadata={"format": "pt"})


def fixed_files(tower: ArlowVLVisionModel, model: ModelSection) -> dict[str, bytes]:
    """Returns every exported file that does not change during training, by its path.

    That is the tower's config.json and code, so that `AutoModel.from_pretrained(folder,
    trust_remote_code=True)` needs nothing of this project, and the processors.
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
        ArlowProcessor(image, video).save_pretrained(folder)
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != WEIGHTS)
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


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


def export(store: Store, step: int, out: Store) -> list[str]:
    """Copies what users keep of a checkpoint to a folder or URL; returns the files' names.

    Their paths are those in the checkpoint: `vision_encoder/`, `image_processor/`,
    `video_processor/`, `processor_config.json` and the model card. Every file is checked against
    the manifest.

    Raises StoreError when the checkpoint is missing or damaged, or the target cannot be written.
    """
    names = exported_names(store, step)
    with tempfile.TemporaryDirectory() as folder:
        paths = download(store, step, names, Path(folder))
        for name, path in zip(names, paths, strict=True):
            if name == CARD:
                # Earlier versions accepted credentials in a manifest's URLs, and the card has them.
                text = path.read_text("utf-8", "replace")
                path.write_text(redact_urls(text), "utf-8")
            out.put_file(path, name)
    return names
