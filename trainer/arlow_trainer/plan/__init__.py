"""What a step costs, by arithmetic from the configuration alone: tokens, operations, memory."""

from arlow_trainer.plan.choice import (
    MicroBatchChoice,
    check_declared_gpus,
    choose_micro_batch,
    fits_no_gpu,
)
from arlow_trainer.plan.flops import (
    ForwardFlops,
    clip_training_flops,
    forward_flops,
    image_training_flops,
)
from arlow_trainer.plan.hardware import HARDWARE, Hardware, hardware_of_device
from arlow_trainer.plan.memory import (
    DeviceMemory,
    activation_bytes,
    bytes_per_device,
    cpu_rank_memory,
    largest_micro_batch,
    saved_bytes,
)
from arlow_trainer.plan.parameters import decoder_parameters, total_parameters, tower_parameters
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image

__all__ = [
    "HARDWARE",
    "DeviceMemory",
    "ForwardFlops",
    "Hardware",
    "MicroBatchChoice",
    "Tokens",
    "activation_bytes",
    "bytes_per_device",
    "check_declared_gpus",
    "choose_micro_batch",
    "clip_training_flops",
    "cpu_rank_memory",
    "decoder_parameters",
    "fits_no_gpu",
    "forward_flops",
    "hardware_of_device",
    "image_training_flops",
    "largest_micro_batch",
    "saved_bytes",
    "tokens_per_clip",
    "tokens_per_image",
    "total_parameters",
    "tower_parameters",
]
