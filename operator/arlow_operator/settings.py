"""What the operator's own environment sets: one for all runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arlow_operator.run_defaults import RunDefaults, read_defaults
from arlow_trainer.config import ConfigError

# As GPU feature discovery labels nodes.
GPU_PRODUCTS = {
    "rtx-8000": "Quadro-RTX-8000",
    "v100-16gb": "Tesla-V100-SXM2-16GB",
    "v100-32gb": "Tesla-V100-SXM2-32GB",
    "a100-40gb": "NVIDIA-A100-SXM4-40GB",
    "a100-80gb": "NVIDIA-A100-SXM4-80GB",
    "a100-40gb-pcie": "NVIDIA-A100-PCIE-40GB",
    "a100-80gb-pcie": "NVIDIA-A100-80GB-PCIe",
    "h100": "NVIDIA-H100-80GB-HBM3",
    "h200": "NVIDIA-H200",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the operator.

    Attributes:
        image: of the trainer, for runs that name none.
        lease_namespace: where the Lease is that only one operator holds; None for no Lease.
        identity: of this operator among others.
        namespaces: whose runs are looked after; empty for all of the cluster.
        gpu_resource: name of the GPUs among a node's resources.
        gpu_label: label of a node that holds its GPUs' product.
        gpu_products: that label's value by the name in the hardware table.
        progress_seconds: between two questions for a run's progress.
        allow_cpu: whether runs of GPUs train on CPUs where the pods' GPUs are on paper, for tests.
        defaults: of all runs.
        webhook_file: with the URL that is told of runs' ends and stalls; None for none.
    """

    image: str
    lease_namespace: str | None = None
    identity: str = ""
    namespaces: tuple[str, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    gpu_label: str = "nvidia.com/gpu.product"
    gpu_products: Mapping[str, str] = field(default_factory=lambda: GPU_PRODUCTS)
    progress_seconds: float = 15.0
    allow_cpu: bool = False
    defaults: RunDefaults = field(default_factory=RunDefaults)
    webhook_file: Path | None = None


def settings_from(environ: Mapping[str, str] = os.environ) -> Settings:
    """Returns the settings that environment variables give. Raises ConfigError."""
    image = environ.get("ARLOW_TRAINER_IMAGE")
    if not image:
        raise ConfigError("ARLOW_TRAINER_IMAGE is not set: name the trainer's image in it")
    seconds = environ.get("ARLOW_PROGRESS_SECONDS", "15")
    try:
        progress_seconds = float(seconds)
    except ValueError:
        progress_seconds = 0.0
    if not 0.5 <= progress_seconds <= 600:
        raise ConfigError(f"ARLOW_PROGRESS_SECONDS is {seconds!r}; allowed: 0.5 to 600 seconds")
    defaults, webhook = environ.get("ARLOW_RUN_DEFAULTS"), environ.get("ARLOW_WEBHOOK_FILE")
    return Settings(
        image=image,
        lease_namespace=environ.get("ARLOW_OPERATOR_NAMESPACE") or None,
        identity=environ.get("HOSTNAME") or socket.gethostname(),
        namespaces=tuple(filter(None, environ.get("ARLOW_NAMESPACES", "").split(","))),
        gpu_resource=environ.get("ARLOW_GPU_RESOURCE", "nvidia.com/gpu"),
        gpu_label=environ.get("ARLOW_GPU_LABEL", "nvidia.com/gpu.product"),
        gpu_products=GPU_PRODUCTS | _products(environ.get("ARLOW_GPU_PRODUCTS", "")),
        progress_seconds=progress_seconds,
        allow_cpu=environ.get("ARLOW_ALLOW_CPU") == "1",
        defaults=read_defaults(defaults) if defaults else RunDefaults(),
        webhook_file=Path(webhook) if webhook else None,
    )


def _products(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        if name not in GPU_PRODUCTS or not value:
            raise ConfigError(
                f"ARLOW_GPU_PRODUCTS has {pair!r}; allowed: NAME=LABEL, comma-separated, with the "
                f"names {', '.join(GPU_PRODUCTS)}"
            )
        found[name] = value
    return found
