"""What accelerators can do, by their makers' data sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp16", "bf16", "fp32"]

GIB = 2**30
TERA = 10**12
GIGA = 10**9


@dataclass(frozen=True)
class Hardware:
    """An accelerator.

    Attributes:
        memory_bytes: nominal memory; a running device reports a few per cent less.
        peak_flops: dense peak, FLOP/s, by precision; one that it lacks is left out. fp32 is that of
            the plain units, since torch does not use TF32 unless told to.
        link_bytes_per_second: to the other devices of its node, in each direction: NVLink where it
            joins all of them, else PCIe.
        source: the data sheet.
    """

    name: str
    memory_bytes: int
    peak_flops: Mapping[Precision, float]
    link_bytes_per_second: float
    source: str


HOPPER_PEAK: Mapping[Precision, float] = {
    "fp16": 989.4 * TERA,
    "bf16": 989.4 * TERA,
    "fp32": 66.9 * TERA,
}
AMPERE_PEAK: Mapping[Precision, float] = {
    "fp16": 312 * TERA,
    "bf16": 312 * TERA,
    "fp32": 19.5 * TERA,
}
VOLTA_PEAK: Mapping[Precision, float] = {"fp16": 125 * TERA, "fp32": 15.7 * TERA}
TURING_PEAK: Mapping[Precision, float] = {"fp16": 130.5 * TERA, "fp32": 16.3 * TERA}

A100 = "NVIDIA A100 Tensor Core GPU data sheet"
V100 = "NVIDIA V100 Tensor Core GPU data sheet (SXM2)"

_TABLE = (
    # NVLink joins pairs of this card only, so eight of them talk over PCIe 3.0 x16.
    Hardware("rtx-8000", 48 * GIB, TURING_PEAK, 16 * GIGA, "NVIDIA Quadro RTX 8000 data sheet"),
    Hardware("v100-16gb", 16 * GIB, VOLTA_PEAK, 150 * GIGA, V100),
    Hardware("v100-32gb", 32 * GIB, VOLTA_PEAK, 150 * GIGA, V100),
    Hardware("a100-40gb", 40 * GIB, AMPERE_PEAK, 300 * GIGA, f"{A100} (SXM)"),
    Hardware("a100-80gb", 80 * GIB, AMPERE_PEAK, 300 * GIGA, f"{A100} (SXM)"),
    Hardware("a100-40gb-pcie", 40 * GIB, AMPERE_PEAK, 32 * GIGA, f"{A100} (PCIe)"),
    Hardware("a100-80gb-pcie", 80 * GIB, AMPERE_PEAK, 32 * GIGA, f"{A100} (PCIe)"),
    Hardware("h100", 80 * GIB, HOPPER_PEAK, 450 * GIGA, "NVIDIA H100 data sheet (SXM)"),
    Hardware("h200", 141 * GIB, HOPPER_PEAK, 450 * GIGA, "NVIDIA H200 data sheet (SXM)"),
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
