"""The modules of a run, built from its configuration."""

from __future__ import annotations

import torch

from arlow_trainer.config import ModelSection, TrainingSection
from arlow_trainer.mae import MaskedAutoencoder, PixelDecoder
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel

CPU = torch.device("cpu")


def vision_config(model: ModelSection) -> ArlowVisionConfig:
    """Returns the tower's Hugging Face configuration."""
    return ArlowVisionConfig(**model.model_dump())


def build_empty_autoencoder(training: TrainingSection, device: torch.device) -> MaskedAutoencoder:
    """Builds the tower and its decoder on a device, with undefined weights.

    For a checkpoint's: to draw weights takes half a minute for the full model.
    """
    module = build_autoencoder(training, torch.device("meta"))
    # A CPU has them where DeepSpeed finds them; elsewhere there is no copy on the host at all.
    return module.to_empty(device=device)


def build_autoencoder(training: TrainingSection, device: torch.device = CPU) -> MaskedAutoencoder:
    """Builds the tower and its decoder on a device, with weights drawn there from the run's seed.

    A GPU draws other numbers than a CPU, and each model of GPU its own: seed and kind of device
    decide a run's first weights. On a GPU it takes less than a second and no memory of the host.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), device:
        torch.manual_seed(training.seed)
        config = vision_config(training.model)
        mae = training.mae
        tower = ArlowVLVisionModel(config)
        decoder = PixelDecoder(config, mae.decoder_dim, mae.decoder_depth, mae.decoder_heads)
    module = MaskedAutoencoder(tower, decoder, mae.normalized_pixel_loss)
    if training.gradient_checkpointing:
        module.gradient_checkpointing_enable()
    return module
