"""What accelerators can do, by their makers' data sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp16", "bf16", "fp32"]

GIB = 2**30
TERA = 10**12


@dataclass(frozen=True)
class Hardware:
    """An accelerator.

    Attributes:
        name: as `spec.resources.gpu` names it.
        peak_flops: dense peak, FLOP/s, by precision; one that it lacks is left out. fp32 is that of
            the plain units, since torch does not use TF32 unless told to.
    """

    name: str
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
    Hardware("rtx-8000", TURING_PEAK),
    Hardware("v100-16gb", VOLTA_PEAK),
    Hardware("v100-32gb", VOLTA_PEAK),
    Hardware("a100-40gb", AMPERE_PEAK),
    Hardware("a100-80gb", AMPERE_PEAK),
    Hardware("a100-40gb-pcie", AMPERE_PEAK),
    Hardware("a100-80gb-pcie", AMPERE_PEAK),
    Hardware("h100", HOPPER_PEAK),
    Hardware("h200", HOPPER_PEAK),
)
HARDWARE: Mapping[str, Hardware] = {hardware.name: hardware for hardware in _TABLE}

# Names as the driver reports them. Slower variants of a chip (PCIe, NVL, MIG) must not match.
_DEVICE_NAMES = (
    (r"Quadro RTX 8000", "rtx-8000"),
    (r"(Tesla )?V100-SXM[23]-16GB", "v100-16gb"),
    (r"(Tesla )?V100-SXM[23]-32GB", "v100-32gb"),
    (r"A100-SXM4?-40GB", "a100-40gb"),
    (r"A100-SXM4?-80GB", "a100-80gb"),
    (r"A100-PCIE-40GB", "a100-40gb-pcie"),
    (r"A100 80GB PCIe|A100-PCIE-80GB", "a100-80gb-pcie"),
    (r"H100 80GB HBM3|H100 SXM5?", "h100"),
    (r"H200", "h200"),
)


def hardware_of_device(device_name: str) -> Hardware | None:
    """Returns the accelerator with a name as `torch.cuda.get_device_name` gives it, if it is known.

    None for any other: a utilisation against the wrong peak is worse than none.
    """
    for pattern, name in _DEVICE_NAMES:
        if re.fullmatch(rf"(NVIDIA )?({pattern})", device_name.strip()):
            return HARDWARE[name]
    return None
