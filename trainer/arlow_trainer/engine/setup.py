"""DeepSpeed ZeRO-2 around a module: the one place that knows its configuration."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch
from torch import nn

from arlow_trainer.config import Precision, TrainingSection
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.engine.attention import check_heads, set_gpu_switches
from arlow_trainer.engine.linear import add_in_products
from arlow_trainer.engine.parameters import parameter_groups
from arlow_trainer.engine.ranks import set_timeouts
from arlow_trainer.plan.memory import MAX_BUCKET

MIN_LOSS_SCALE = 1.0
# Elements; nothing runs beside the gathering of new weights.
_GATHERED_AT_ONCE = 500_000_000


def effective_precision(declared: Precision, device: torch.device) -> Precision:
    """Returns the precision a device trains in: fp16 needs a GPU, a CPU takes fp32 instead.

    Raises ConfigError where a GPU has no bf16 of its own (before Ampere: RTX 8000, V100).
    """
    if device.type == "cpu":
        return "fp32" if declared == "fp16" else declared
    if declared == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"spec.training.precision: {name} has no bf16; allowed: fp16, fp32")
    return declared


def deepspeed_config(
    training: TrainingSection, precision: Precision, parameters: int
) -> dict[str, Any]:
    """Returns the DeepSpeed configuration of a run.

    Accumulation stays 1 here: a step's micro-batches are ours, and their gradients are reduced
    once (`coalesce_grad_reduction`). Bucket size and reduction algorithm are pinned because they
    change the bits of a sum.
    """
    bucket, whole = (max(1, min(parameters, most)) for most in (MAX_BUCKET, _GATHERED_AT_ONCE))
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.optimizer.max_grad_norm,
        "zero_optimization": {
            "stage": training.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": whole,
            "use_multi_rank_bucket_allreduce": False,
            "overlap_comm": False,
            "contiguous_gradients": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
        # It would wait for the device before every forward pass.
        "timers": {"throughput": {"enabled": False}},
    }
    if precision == "fp16":
        config["fp16"] = {
            "enabled": True,
            "initial_scale_power": 16,
            "loss_scale_window": 1000,
            "hysteresis": 2,
            "min_loss_scale": MIN_LOSS_SCALE,
        }
    elif precision == "bf16":
        config["bf16"] = {"enabled": True}
    return config


def forget_nvml() -> None:
    """Keeps DeepSpeed from asking NVML how much memory is free.

    It reads CUDA_VISIBLE_DEVICES as numbers for that, and MIG devices and some schedulers have
    names there; without NVML it asks torch.
    """
    from deepspeed.accelerator import cuda_accelerator, get_accelerator

    get_accelerator()
    cuda_accelerator.pynvml = None


def initialize_engine(
    module: nn.Module, training: TrainingSection, precision: Precision, device: torch.device
) -> Any:
    """Wraps a module in a DeepSpeed engine with AdamW.

    The default process group must exist. Parameters stay where they are on a CPU and move to
    `device` otherwise, where attention and products are switched to sound kernels for the whole
    process. Gradients of the module's large linear layers add up in their products from here on
    (`linear`). Raises ConfigError for heads that the kernels cannot read.
    """
    if device.type == "cuda":
        check_heads(training, precision)
        set_gpu_switches()
    add_in_products(module)
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed calls collectives by names that this torch has newer ones for.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed
    import deepspeed.ops

    # On a CPU DeepSpeed would compile a shared-memory collective at start; gloo serves.
    deepspeed.ops.__compatible_ops__ = {}
    forget_nvml()
    optimizer = torch.optim.AdamW(
        parameter_groups(module, training.optimizer.weight_decay),
        lr=training.optimizer.learning_rate,
        betas=(training.optimizer.betas[0], training.optimizer.betas[1]),
        fused=device.type == "cuda",
    )
    count = sum(p.numel() for p in module.parameters())
    # What DeepSpeed keeps of the parameters would hold autograd's nodes for them, and these stay on
    # the stream that they were made on: a graph that is captured on another could have none.
    with torch.no_grad():
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=deepspeed_config(training, precision, count)
        )
    set_timeouts()
    if precision == "fp16":
        # The guard counts overflows at the lowest scale, and ends the run with a message.
        engine.optimizer.loss_scaler.raise_error_at_min_scale = False
        # The norm is not finite where any gradient is not: looked for in each parameter as well, it
        # takes most of the update's kernels.
        engine.optimizer.check_grad_overflow = False
    _wait_once_a_step(engine.optimizer)
    return engine


def _wait_once_a_step(optimizer: Any) -> None:
    """Has an update wait for the device once, for the norm of the gradients.

    DeepSpeed 0.19.8 keeps the norm on the device and reads it again in every parameter group's
    clipping (`unscale_and_clip_grads`), behind the update of the group before.
    """
    on_the_device = optimizer.scaled_global_norm
    optimizer.scaled_global_norm = lambda: on_the_device().cpu()
