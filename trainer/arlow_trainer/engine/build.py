"""The modules of a run, built from its configuration."""

from __future__ import annotations

import torch

from arlow_trainer.config import ModelSection, TrainingSection
from arlow_trainer.mae import MaskedAutoencoder, PixelDecoder
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel


def vision_config(model: ModelSection) -> ArlowVisionConfig:
    """Returns the tower's Hugging Face configuration."""
    return ArlowVisionConfig(**model.model_dump())


def build_empty_autoencoder(training: TrainingSection, device: torch.device) -> MaskedAutoencoder:
    """Builds the tower and its decoder on a device, with undefined weights.

    For a checkpoint's: to draw weights takes half a minute for the full model.
    """
    with torch.device("meta"):
        module = build_autoencoder(training)
    # A CPU has them where DeepSpeed finds them; elsewhere there is no copy on the host at all.
    return module.to_empty(device=device)


def build_autoencoder(training: TrainingSection) -> MaskedAutoencoder:
    """Builds the tower and its decoder on the current default device, drawn from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        config = vision_config(training.model)
        mae = training.mae
        tower = ArlowVLVisionModel(config)
        decoder = PixelDecoder(config, mae.decoder_dim, mae.decoder_depth, mae.decoder_heads)
    module = MaskedAutoencoder(tower, decoder, mae.normalized_pixel_loss)
    if training.gradient_checkpointing:
        module.gradient_checkpointing_enable()
    return module
