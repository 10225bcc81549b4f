"""Reads the images and clips to reconstruct, as centre crops."""

from __future__ import annotations

from pathlib import Path

from arlow_trainer.config import DataSection, MaeSection, Modality, TrainingSection
from arlow_trainer.config.errors import ConfigError, DataError
from arlow_trainer.data import (
    BrokenSample,
    RawSample,
    Source,
    center_view,
    decode_clip,
    decode_image,
)
from arlow_trainer.data.formats import extension, extensions
from arlow_trainer.pictures.reconstruction import Pixels

_MAX_SAMPLES = 8


def read_file(path: Path, data: DataSection) -> Pixels:
    """Reads an image or, by the file name's suffix, the middle clip of a video.

    Returns:
        uint8 [frames, imageSize, imageSize, 3]; one frame for an image.

    Raises:
        DataError: the file cannot be decoded.
    """
    suffix = extension(path.name)
    only_video = suffix in extensions("video") and suffix not in extensions("image")
    modality: Modality = "video" if only_video else "image"
    try:
        return _frames(RawSample(str(path), str(path)), modality, data)
    except BrokenSample as broken:
        raise DataError(f"{broken}; give an image or video that other programs can open") from None


def first_sample(source: Source, modality: Modality, data: DataSection) -> tuple[str, Pixels]:
    """Returns name and frames, as `read_file` does, of the first sample that can be decoded.

    Raises DataError if none of the first few can be decoded, or the set cannot be read.
    """
    reasons = []
    for position in range(min(_MAX_SAMPLES, len(source))):
        try:
            raw = source.read(position)
            return raw.name, _frames(raw, modality, data)
        except BrokenSample as broken:
            reasons.append(str(broken))
    raise DataError(f"{source.name}: no sample to reconstruct: " + "; ".join(reasons))


def check_mask_ratio(mae: MaeSection, training: TrainingSection) -> None:
    """Raises ConfigError unless the ratio hides some but not all of an image."""
    side = training.model.patch_size * training.model.spatial_merge_size
    units = (training.data.image_size // side) ** 2
    hidden = mae.hidden_unit_count(units)
    if not 0 < hidden < units:
        raise ConfigError(
            f"--mask-ratio {mae.mask_ratio}: must hide some but not all of an image's {units} "
            f"merge units; this one hides {hidden}"
        )


def _frames(raw: RawSample, modality: Modality, data: DataSection) -> Pixels:
    if modality == "image":
        return center_view([decode_image(raw)], data.image_size)
    return center_view(decode_clip(raw, data.clip_frames, data.frame_stride), data.image_size)
