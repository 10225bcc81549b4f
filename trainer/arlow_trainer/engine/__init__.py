"""Optimisation under DeepSpeed ZeRO-2: modules, parameter groups, schedule, the step, its guard."""

from .build import build_autoencoder, vision_config
from .devices import device_memory, device_name, memory_told, peak_flops
from .guard import FiniteGuard
from .ranks import Ranks
from .schedule import learning_rate
from .setup import effective_precision, initialize_engine
from .state import (
    OptimizerShard,
    RestoredShard,
    capture_optimizer,
    capture_weights,
    install_shard,
    loss_scaler_state,
    read_shards,
    restore_loss_scaler,
    shard_name,
)
from .step import StepRunner

__all__ = [
    "FiniteGuard",
    "OptimizerShard",
    "Ranks",
    "RestoredShard",
    "StepRunner",
    "build_autoencoder",
    "capture_optimizer",
    "capture_weights",
    "device_memory",
    "device_name",
    "effective_precision",
    "initialize_engine",
    "install_shard",
    "learning_rate",
    "loss_scaler_state",
    "memory_told",
    "peak_flops",
    "read_shards",
    "restore_loss_scaler",
    "shard_name",
    "vision_config",
]
