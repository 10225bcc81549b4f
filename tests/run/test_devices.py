"""What a run trains on, over every kind of machine, and the words where it cannot train."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from arlow_trainer.config.cluster import NodesSection
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.run.devices import (
    Devices,
    Facts,
    Gpu,
    check_batch_covers_ranks,
    decide,
    unsupported,
)

RTX = Gpu("Quadro RTX 8000", (7, 5))
EIGHT = Facts(
    "2.13.0+cu130", "13.0", (RTX,) * 8, installed=8, driver="580.65.06", driver_cuda=(13, 0)
)
NONE = Facts("2.13.0+cu130", "13.0")
OLD = Facts(
    "2.13.0+cu130", "13.0", (RTX,) * 8, installed=8, driver="535.183.01", driver_cuda=(12, 2)
)
UNSEEN = Facts(
    "2.13.0+cu130",
    "13.0",
    installed=8,
    driver="580.65.06",
    driver_cuda=(13, 0),
    cuda_error="CUDA_ERROR_NO_DEVICE",
    visible="GPU-1234",
)
NOT_READY = Facts(
    "2.13.0+cu130",
    "13.0",
    driver="580.65.06",
    driver_cuda=(13, 0),
    cuda_error="CUDA_ERROR_SYSTEM_NOT_READY",
)
CPU_TORCH = Facts(
    "2.13.0+cpu", None, (RTX,) * 8, installed=8, driver="580.65.06", driver_cuda=(13, 0)
)
HIDDEN = Facts("2.13.0+cu130", "13.0", visible="")
STUB = Facts("2.13.0+cu130", "13.0", cuda_error="CUDA_ERROR_STUB_LIBRARY")

POD = {"ARLOW_ATTEMPT": "1"}
ALLOWED = POD | {"ARLOW_ALLOW_CPU": "1"}
EIGHT_GPUS, NO_GPUS = NodesSection(gpus=8), NodesSection(gpus=0, ranks=3)


@pytest.mark.parametrize(
    ("facts", "nodes", "asked", "environ", "gpus", "ranks", "words"),
    [
        (EIGHT, EIGHT_GPUS, None, {}, True, 8, "8 ranks, one a GPU: Quadro RTX 8000 (driver 580"),
        (EIGHT, NodesSection(gpus=2), None, {}, True, 8, "8 ranks"),
        (EIGHT, EIGHT_GPUS, 2, {}, True, 2, "2 ranks"),
        (EIGHT, NodesSection(gpus=2), None, POD, True, 2, "2 ranks"),
        (NONE, EIGHT_GPUS, None, {}, False, 1, "1 rank on CPUs: there is no GPU here"),
        (NONE, EIGHT_GPUS, 4, {}, False, 4, "4 ranks on CPUs"),
        (STUB, EIGHT_GPUS, None, {}, False, 1, "there is no GPU here"),
        (HIDDEN, EIGHT_GPUS, None, {}, False, 1, "CUDA_VISIBLE_DEVICES hides any GPU"),
        (HIDDEN, EIGHT_GPUS, None, ALLOWED, False, 8, "8 ranks on CPUs (ARLOW_ALLOW_CPU=1)"),
        (NONE, EIGHT_GPUS, None, ALLOWED, False, 8, "ARLOW_ALLOW_CPU=1"),
        (OLD, EIGHT_GPUS, None, ALLOWED, False, 8, "ARLOW_ALLOW_CPU=1"),
        (EIGHT, EIGHT_GPUS, None, ALLOWED, True, 8, "one a GPU"),
        (EIGHT, NO_GPUS, None, POD, False, 3, "3 ranks on CPUs, as spec.nodes.gpus: 0 declares"),
        (OLD, NO_GPUS, None, POD, False, 3, "3 ranks on CPUs"),
    ],
)
def test_what_a_run_trains_on(
    facts: Facts,
    nodes: NodesSection,
    asked: int | None,
    environ: Mapping[str, str],
    gpus: bool,
    ranks: int,
    words: str,
) -> None:
    found = decide(facts, nodes, asked, environ)
    assert found == Devices(gpus, ranks, found.words)
    assert words in found.words


@pytest.mark.parametrize(
    ("facts", "nodes", "asked", "environ", "words"),
    [
        (
            OLD,
            EIGHT_GPUS,
            None,
            {},
            ["driver 535.183.01", "CUDA 12.2", "CUDA 13.0", "580 or newer"],
        ),
        (OLD, EIGHT_GPUS, None, POD, ["driver 535.183.01", "cu126"]),
        (OLD, EIGHT_GPUS, 8, {}, ["too old"]),
        (UNSEEN, EIGHT_GPUS, None, {}, ["8 GPUs", "'GPU-1234'", "CUDA_ERROR_NO_DEVICE"]),
        (NOT_READY, EIGHT_GPUS, None, {}, ["CUDA_ERROR_SYSTEM_NOT_READY", "fabric manager"]),
        (CPU_TORCH, EIGHT_GPUS, None, {}, ["built without CUDA", "2.13.0+cpu"]),
        (NONE, EIGHT_GPUS, None, POD, ["needs 8 GPUs", "CUDA gives this pod 0"]),
        (HIDDEN, EIGHT_GPUS, None, POD, ["needs 8 GPUs"]),
        (EIGHT, NodesSection(gpus=16), None, POD, ["needs 16 GPUs", "this pod 8"]),
        (EIGHT, EIGHT_GPUS, 9, {}, ["has 8 GPUs", "--ranks"]),
    ],
)
def test_gpus_that_cannot_be_used_are_no_cpu_run(
    facts: Facts,
    nodes: NodesSection,
    asked: int | None,
    environ: Mapping[str, str],
    words: list[str],
) -> None:
    with pytest.raises(ConfigError) as refused:
        decide(facts, nodes, asked, environ)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        (None, False),
        *[(value, True) for value in ("", " ", "-1", "-1,0", "NoDevFiles")],
        *[(value, False) for value in ("0", "0,-1", "GPU-1f2e", "MIG-77")],
    ],
)
def test_what_hides_every_gpu(value: str | None, hidden: bool) -> None:
    assert Facts("2", "13.0", visible=value).hidden is hidden


CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ((7, 5), CU130, True),
        ((7, 0), CU130, False),
        ((8, 9), CU130, True),
        ((9, 0), CU130, True),
        ((12, 1), CU130, True),
        ((13, 0), CU130, True),  # compiled by the driver, from PTX
        ((13, 0), CU130[:-1], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_90a"], False),
        ((7, 0), ["sm_50", "sm_60", "sm_70"], True),
    ],
)
def test_which_gpus_have_kernels(
    capability: tuple[int, int], kernels: list[str], runs: bool
) -> None:
    problem = unsupported([Gpu("a GPU", capability)], kernels, "2.13.0", "13.0")
    assert (problem is None) is runs
    if problem is not None:
        assert f"sm_{capability[0]}{capability[1]}" in problem


def test_the_launcher_imports_no_torch() -> None:
    code = (
        "import sys, arlow_trainer.cli, arlow_trainer.run.launch, arlow_trainer.run.rank\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ranks_without_samples_are_refused() -> None:
    check_batch_covers_ranks(4, 4)
    with pytest.raises(ConfigError, match="5 ranks cannot share a global batch of 4; start fewer"):
        check_batch_covers_ranks(5, 4)
