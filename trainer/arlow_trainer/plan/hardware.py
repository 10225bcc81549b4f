"""What accelerators can do, by their makers' data sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from arlow_trainer.config import Precision

GIB = 2**30
TERA = 10**12


@dataclass(frozen=True)
class Hardware:
    """An accelerator.

    Attributes:
        name: as `spec.nodes.gpuProduct` names it.
        memory_bytes: of the device; its driver reports a little less.
        device_name: pattern of the names that its driver reports, without a leading NVIDIA.
            Slower variants of a chip (PCIe, NVL, MIG) must not match.
        peak_flops: dense peak, FLOP/s, by precision; one that it lacks is left out. fp32 is that of
            the plain units, since torch does not use TF32 unless told to.
    """

    name: str
    memory_bytes: int
    device_name: str
    peak_flops: Mapping[Precision, float]


# NVIDIA H100 and H200 data sheets (SXM).
HOPPER_PEAK: Mapping[Precision, float] = {
    "fp16": 989.4 * TERA,
    "bf16": 989.4 * TERA,
    "fp32": 66.9 * TERA,
}
# NVIDIA A100 Tensor Core GPU data sheet (SXM and PCIe).
AMPERE_PEAK: Mapping[Precision, float] = {
    "fp16": 312 * TERA,
    "bf16": 312 * TERA,
    "fp32": 19.5 * TERA,
}
# NVIDIA V100 Tensor Core GPU data sheet (SXM2).
VOLTA_PEAK: Mapping[Precision, float] = {"fp16": 125 * TERA, "fp32": 15.7 * TERA}
# NVIDIA Quadro RTX 8000 data sheet.
TURING_PEAK: Mapping[Precision, float] = {"fp16": 130.5 * TERA, "fp32": 16.3 * TERA}

_TABLE = (
    Hardware("rtx-8000", 48 * GIB, r"Quadro RTX 8000", TURING_PEAK),
    Hardware("v100-16gb", 16 * GIB, r"(Tesla )?V100-SXM[23]-16GB", VOLTA_PEAK),
    Hardware("v100-32gb", 32 * GIB, r"(Tesla )?V100-SXM[23]-32GB", VOLTA_PEAK),
    Hardware("a100-40gb", 40 * GIB, r"A100-SXM4?-40GB", AMPERE_PEAK),
    Hardware("a100-80gb", 80 * GIB, r"A100-SXM4?-80GB", AMPERE_PEAK),
    Hardware("a100-40gb-pcie", 40 * GIB, r"A100-PCIE-40GB", AMPERE_PEAK),
    Hardware("a100-80gb-pcie", 80 * GIB, r"A100 80GB PCIe|A100-PCIE-80GB", AMPERE_PEAK),
    Hardware("h100", 80 * GIB, r"H100 80GB HBM3|H100 SXM5?", HOPPER_PEAK),
    Hardware("h200", 140 * GIB, r"H200", HOPPER_PEAK),
)
HARDWARE: Mapping[str, Hardware] = {hardware.name: hardware for hardware in _TABLE}


def hardware_of_device(device_name: str) -> Hardware | None:
    """Returns the accelerator with a name as `torch.cuda.get_device_name` gives it, if it is known.

    None for any other: a utilisation against the wrong peak is worse than none.
    """
    for hardware in HARDWARE.values():
        if re.fullmatch(rf"(NVIDIA )?({hardware.device_name})", device_name.strip()):
            return hardware
    return None
