"""The model card, written from the run's own configuration, data and results."""

from __future__ import annotations

from typing import Any

import yaml

from arlow_trainer.checkpoint.training_state import TrainingState
from arlow_trainer.config import ArlowPretrain, SetSection
from arlow_trainer.data.folder import is_folder


def model_card(run: ArlowPretrain, state: TrainingState, parameters: int) -> str:
    """Returns a README.md in Hugging Face's format.

    Args:
        run: the run.
        state: its state at the checkpoint.
        parameters: number of the tower's parameters.
    """
    training = run.spec.training
    model, mae, data, optimizer = training.model, training.mae, training.data, training.optimizer
    drawn = data.drawn
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["arlow", "vision", "masked-autoencoder"],
        "datasets": [source.path for source in drawn.values() if not is_folder(source.path)],
    }
    if not header["datasets"]:
        del header["datasets"]
    schedule = (
        f"linear warm-up over {optimizer.warmup_steps:,} steps, cosine decay over "
        f"{state.total_steps:,}"
    )
    loss = "not read out yet" if state.loss is None else f"{state.loss:.4f}"
    target = "normalised patches" if mae.normalized_pixel_loss else "pixels"
    video_share = f"{data.video_probability:.0%} of the samples"
    rows = [
        ("Step", f"{state.step:,} of {state.total_steps:,}"),
        ("Samples seen", f"{state.next_sample:,}"),
        ("Loss (mean squared error over masked " + target + ")", loss),
        ("Images", _source(drawn.get("image"))),
        ("Videos", f"{_source(drawn['video'])}, {video_share}" if "video" in drawn else "none"),
        ("Crop", f"{data.image_size} px, scale {data.min_crop_scale} to 1"),
        ("Clips", f"{data.clip_frames} frames, stride {data.frame_stride}"),
        ("Mask ratio", f"{mae.mask_ratio} over 2x2 merge units; tubes on video"),
        (
            "Decoder",
            f"{mae.decoder_dim} wide, {mae.decoder_depth} blocks, {mae.decoder_heads} heads",
        ),
        ("Global batch", f"{run.spec.global_batch_size} samples"),
        ("Optimiser", f"AdamW {tuple(optimizer.betas)}, weight decay {optimizer.weight_decay}"),
        ("Learning rate", f"{optimizer.learning_rate}, {schedule}"),
        ("Precision", state.precision),
        ("Seed", str(state.seed)),
        ("Started from", f"`{training.init}`" if training.init else "random weights"),
        ("Broken files skipped", str(len(state.skipped_files))),
        ("Steps lost to overflow", str(state.overflows)),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {run.metadata.name}

An Arlow vision tower of {parameters / 1e6:,.1f} M parameters, pretrained by masked autoencoding
(He et al., 2022, arXiv:2111.06377): {model.depth} blocks of width {model.embed_dim} with
{model.num_heads} heads, patches of {model.patch_size} x {model.patch_size} pixels and
{model.temporal_patch_size} frames, 2x2 of them merged into tokens of width {model.hidden_size}.
It has seen no labels and no text; its features are meant for a language model to read, or for
training on a task.

## Use

With this folder as `tower`, and transformers 5.10 or newer:

```python
from PIL import Image
from transformers import AutoModel, AutoProcessor

tower = AutoModel.from_pretrained("tower", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("tower", trust_remote_code=True)
seen = tower(**processor(images=Image.open("photo.jpg"), return_tensors="pt"))
```

`seen.last_hidden_state` is the visual tokens of all images, one after another, and
`seen.pooler_output` their mean for each image; `seen.deepstack_features` are features of several
depths, where the tower has any. Videos, each a list of frames, go in as
`processor(videos=[frames], return_tensors="pt")`. Loading with `device_map="auto"` needs the
package accelerate. The tower was trained on images of {data.image_size} x {data.image_size} pixels.

## Training

| | |
| --- | --- |
{table}

## Limits

The tower carries whatever its data carries. It was evaluated on no task but those named here.
"""


def _source(source: SetSection | None) -> str:
    if source is None:
        return "none"
    named = f" ({source.name})" if source.name else ""
    return f"`{source.path}`{named}, split `{source.split}`"
