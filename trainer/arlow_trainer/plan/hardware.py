"""What accelerators can do, by their makers' data sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from arlow_trainer.config import Precision
from arlow_trainer.plan.attention import Kernel

GIB = 2**30
TERA = 10**12


@dataclass(frozen=True, kw_only=True)
class Chip:
    """What accelerators with one kind of chip have in common.

    Attributes:
        compute_capability: CUDA's, such as (7, 5).
        peak_flops: dense peak, FLOP/s, by precision; one that it lacks is left out. fp32 is that of
            the plain units, since torch does not use TF32 unless told to.
        product_share: of the peak that the tower's matrix products reach.
        attention_flops: FLOP/s that attention with a bias reaches, by kernel (`plan.attention`).
        saturating_flops: of a micro-batch, forward and backward, beyond which the device computes
            no faster.
        measured: whether the last three were measured on such a chip; else they are estimates from
            what is published about it.
    """

    compute_capability: tuple[int, int]
    peak_flops: Mapping[Precision, float]
    product_share: float
    attention_flops: Mapping[Kernel, float]
    saturating_flops: float
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Link:
    """How the accelerators of a node reach each other and the host.

    Attributes:
        name: as people call it.
        bytes_per_second: that a collective over all accelerators of a node moves through each.
        host_bytes_per_second: from an accelerator to pinned memory.
    """

    name: str
    bytes_per_second: float
    host_bytes_per_second: float


@dataclass(frozen=True)
class Hardware:
    """An accelerator.

    Attributes:
        name: as `spec.nodes.gpuProduct` names it.
        memory_bytes: of the device; its driver reports a little less.
        memory_bandwidth: bytes/s, by its data sheet.
        device_name: pattern of the names that its driver reports, without a leading NVIDIA.
            Slower variants of a chip (PCIe, NVL, MIG) must not match.
        chip: what it computes with.
        link: how it is connected.
    """

    name: str
    memory_bytes: int
    memory_bandwidth: float
    device_name: str
    chip: Chip
    link: Link

    @property
    def peak_flops(self) -> Mapping[Precision, float]:
        """Dense peak, FLOP/s, by precision (`Chip.peak_flops`)."""
        return self.chip.peak_flops


# NVIDIA H100 and H200 data sheets (SXM). The rest was measured on an H200: 96 images of the full
# model take 168 ms and 192 take 322, of which products take about half (docs/planning.md).
HOPPER = Chip(
    compute_capability=(9, 0),
    peak_flops={"fp16": 989.4 * TERA, "bf16": 989.4 * TERA, "fp32": 66.9 * TERA},
    product_share=0.75,
    attention_flops={"cudnn": 150 * TERA, "memory-efficient": 75 * TERA},
    saturating_flops=57 * TERA,
    measured=True,
)
# NVIDIA A100 Tensor Core GPU data sheet (SXM and PCIe).
AMPERE = Chip(
    compute_capability=(8, 0),
    peak_flops={"fp16": 312 * TERA, "bf16": 312 * TERA, "fp32": 19.5 * TERA},
    product_share=0.75,
    attention_flops={"memory-efficient": 50 * TERA},
    saturating_flops=38 * TERA,
)
# NVIDIA V100 Tensor Core GPU data sheet (SXM2).
VOLTA = Chip(
    compute_capability=(7, 0),
    peak_flops={"fp16": 125 * TERA, "fp32": 15.7 * TERA},
    product_share=0.65,
    attention_flops={"memory-efficient": 20 * TERA},
    saturating_flops=28.5 * TERA,
)
# NVIDIA Quadro RTX 8000 data sheet.
TURING = Chip(
    compute_capability=(7, 5),
    peak_flops={"fp16": 130.5 * TERA, "fp32": 16.3 * TERA},
    product_share=0.6,
    attention_flops={"memory-efficient": 20 * TERA},
    saturating_flops=28.5 * TERA,
)

PCIE_3 = Link(name="PCIe 3", bytes_per_second=8e9, host_bytes_per_second=11e9)
PCIE_4 = Link(name="PCIe 4", bytes_per_second=16e9, host_bytes_per_second=22e9)
NVLINK_2 = Link(name="NVLink 2", bytes_per_second=100e9, host_bytes_per_second=11e9)
NVLINK_3 = Link(name="NVLink 3", bytes_per_second=220e9, host_bytes_per_second=22e9)
NVLINK_4 = Link(name="NVLink 4", bytes_per_second=340e9, host_bytes_per_second=50e9)

_TABLE = (
    Hardware("rtx-8000", 48 * GIB, 672e9, r"Quadro RTX 8000", TURING, PCIE_3),
    Hardware("v100-16gb", 16 * GIB, 900e9, r"(Tesla )?V100-SXM[23]-16GB", VOLTA, NVLINK_2),
    Hardware("v100-32gb", 32 * GIB, 900e9, r"(Tesla )?V100-SXM[23]-32GB", VOLTA, NVLINK_2),
    Hardware("a100-40gb", 40 * GIB, 1.555e12, r"A100-SXM4?-40GB", AMPERE, NVLINK_3),
    Hardware("a100-80gb", 80 * GIB, 2.039e12, r"A100-SXM4?-80GB", AMPERE, NVLINK_3),
    Hardware("a100-40gb-pcie", 40 * GIB, 1.555e12, r"A100-PCIE-40GB", AMPERE, PCIE_4),
    Hardware(
        "a100-80gb-pcie", 80 * GIB, 1.935e12, r"A100 80GB PCIe|A100-PCIE-80GB", AMPERE, PCIE_4
    ),
    Hardware("h100", 80 * GIB, 3.35e12, r"H100 80GB HBM3|H100 SXM5?", HOPPER, NVLINK_4),
    Hardware("h200", 140 * GIB, 4.8e12, r"H200", HOPPER, NVLINK_4),
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
