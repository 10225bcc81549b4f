"""Steps and read-outs of a small run, for tests."""

from __future__ import annotations

from typing import Any

from arlow_trainer.telemetry import ScalarValues, StepReport


def make_report(step: int, **changes: Any) -> StepReport:
    """A step of 100 that took half a second for 24 images and 8 clips, without a read-out."""
    values: dict[str, Any] = {
        "step": step,
        "total_steps": 100,
        "seconds": 0.5,
        "images": 24,
        "clips": 8,
        "tokens": 2000,
        "flops": 1e9,
        "phase_seconds": {"data": 0.1, "forward": 0.15, "backward": 0.2, "optimizer": 0.05},
    }
    return StepReport(**{**values, **changes})


def make_readout(**changes: float | None) -> ScalarValues:
    """An fp16 run's read-out."""
    values: dict[str, float | None] = {
        "loss": 0.5,
        "learning_rate": 1e-4,
        "grad_norm": 0.8,
        "grad_norm_max": 1.5,
        "image_loss": 0.45,
        "video_loss": 0.65,
        "loss_scale": 65536.0,
        "max_attention_logit": 12.0,
        "rank_skew_seconds": 0.02,
        "gpu_memory_bytes": 2e9,
    }
    return {**values, **changes}
