"""Optimisation under DeepSpeed ZeRO-2: modules, parameter groups, schedule, the step, its guard."""

from arlow_trainer.engine.build import build_autoencoder, build_empty_autoencoder, vision_config
from arlow_trainer.engine.devices import (
    device_memory,
    device_name,
    explain_out_of_memory,
    peak_flops,
)
from arlow_trainer.engine.failures import explain_device_failures
from arlow_trainer.engine.guard import FiniteGuard
from arlow_trainer.engine.ranks import Ranks
from arlow_trainer.engine.schedule import learning_rate
from arlow_trainer.engine.setup import effective_precision, initialize_engine
from arlow_trainer.engine.state import (
    MASTER,
    MOMENTS,
    SCALER_FIELDS,
    Fragment,
    OptimizerShard,
    RestoredShard,
    before_updates,
    install_shard,
    loss_scaler_state,
    optimizer_shard,
    read_shards,
    restore_loss_scaler,
    shard_name,
)
from arlow_trainer.engine.step import StepRunner

__all__ = [
    "MASTER",
    "MOMENTS",
    "SCALER_FIELDS",
    "FiniteGuard",
    "Fragment",
    "OptimizerShard",
    "Ranks",
    "RestoredShard",
    "StepRunner",
    "before_updates",
    "build_autoencoder",
    "build_empty_autoencoder",
    "device_memory",
    "device_name",
    "effective_precision",
    "explain_device_failures",
    "explain_out_of_memory",
    "initialize_engine",
    "install_shard",
    "learning_rate",
    "loss_scaler_state",
    "optimizer_shard",
    "peak_flops",
    "read_shards",
    "restore_loss_scaler",
    "shard_name",
    "vision_config",
]
