"""The hardware table."""

from __future__ import annotations

from typing import get_args

import pytest

from arlow_trainer.config import ConfigError, load_run
from arlow_trainer.config.cluster import Gpu
from arlow_trainer.plan import HARDWARE, hardware_of_device


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("Quadro RTX 8000", "rtx-8000"),
        ("NVIDIA Quadro RTX 8000", "rtx-8000"),
        ("Tesla V100-SXM2-16GB", "v100-16gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_device_is_known_by_its_drivers_name(device: str, name: str) -> None:
    assert hardware_of_device(device) is HARDWARE[name]


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090",
        "",
    ],
)
def test_a_slower_or_unknown_device_has_no_peak(device: str) -> None:
    assert hardware_of_device(device) is None


def test_the_default_runs_card() -> None:
    card = HARDWARE["rtx-8000"]
    assert card.peak_flops["fp16"] == 130.5e12
    assert "bf16" not in card.peak_flops  # Turing has none


def test_the_schema_allows_what_the_table_holds() -> None:
    assert set(get_args(Gpu)) == set(HARDWARE)
    with pytest.raises(ConfigError, match=r"nodes\.gpuProduct: .*gtx-1080.*rtx-8000.*h200"):
        load_run("tiny", ["spec.nodes.gpuProduct=gtx-1080"])


@pytest.mark.parametrize("name", HARDWARE)
def test_every_entry_is_whole(name: str) -> None:
    peak = HARDWARE[name].peak_flops
    assert HARDWARE[name].name == name
    assert peak["fp16"] > peak["fp32"] > 1e12
    assert peak.get("bf16", peak["fp16"]) == peak["fp16"]
