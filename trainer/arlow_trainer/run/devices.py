"""Which devices a run trains on, decided before any rank starts, and without torch."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from arlow_trainer.config.cluster import NodesSection
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.run import gpu_facts

ATTEMPT_VARIABLE = "ARLOW_ATTEMPT"
"""The operator sets it in a run's pods."""
ALLOW_CPU_VARIABLE = "ARLOW_ALLOW_CPU"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"

_HIDDEN = ("", "-1", "NoDevFiles", "none", "void")
"""First entries of CUDA_VISIBLE_DEVICES that leave no GPU."""
_NO_GPU_ERRORS = (None, "CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_STUB_LIBRARY")
_OLDEST_DRIVER = {11: "450", 12: "525", 13: "580"}
"""The first driver that runs programs of each major version of CUDA."""
_ANSWER_S = 60.0

_HIDE = "CUDA_VISIBLE_DEVICES= in front of the command trains on CPUs"


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA gives this process, and its compute capability."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Facts:
    """What is known of this machine's GPUs.

    Attributes:
        torch: version of the installed torch.
        torch_cuda: version of CUDA that it was built for; None for a build without CUDA.
        gpus: what CUDA gives this process, in the order of its device numbers.
        installed: GPUs that the driver manages (NVML), whatever this process may use.
        driver: version of the driver; None where there is none.
        driver_cuda: newest version of CUDA that the driver runs.
        cuda_error: name of the error with which CUDA did not start.
        visible: CUDA_VISIBLE_DEVICES; None where it is not set.
    """

    torch: str
    torch_cuda: str | None
    gpus: tuple[Gpu, ...] = ()
    installed: int = 0
    driver: str | None = None
    driver_cuda: tuple[int, int] | None = None
    cuda_error: str | None = None
    visible: str | None = None

    @property
    def hidden(self) -> bool:
        """Whether CUDA_VISIBLE_DEVICES hides every GPU."""
        return self.visible is not None and self.visible.split(",")[0].strip() in _HIDDEN


@dataclass(frozen=True)
class Devices:
    """What the ranks of this machine train on, one rank each, and a line that says so."""

    gpus: bool
    ranks: int
    words: str


def decide(
    facts: Facts, nodes: NodesSection, ranks: int | None, environ: Mapping[str, str]
) -> Devices:
    """Returns what to train on: in a pod what `nodes` declares, else the devices there are.

    Args:
        facts: of this machine.
        nodes: the run's.
        ranks: how many were asked for on the command line.
        environ: a pod's has ARLOW_ATTEMPT; ARLOW_ALLOW_CPU=1 trains a run of GPUs on CPUs.

    Raises:
        ConfigError: there are GPUs that cannot be used, or fewer than ranks.
    """
    in_pod = ATTEMPT_VARIABLE in environ
    if in_pod and not nodes.gpus:
        count = ranks or nodes.ranks
        return Devices(False, count, f"{_ranks(count)} on CPUs, as spec.nodes.gpus: 0 declares")
    declared = ranks or (nodes.gpus if in_pod else None)
    problem = _problem(facts)
    if problem is None and in_pod and declared and len(facts.gpus) < declared:
        problem = (
            f"the run needs {declared} GPUs on this node (spec.nodes.gpus), and CUDA gives this "
            f"pod {len(facts.gpus)}{_of(facts)}: correct spec.nodes.gpus, or look after the node "
            "and its device plugin"
        )
    if problem is not None:
        if environ.get(ALLOW_CPU_VARIABLE) == "1":
            count = declared or 1
            return Devices(False, count, f"{_ranks(count)} on CPUs ({ALLOW_CPU_VARIABLE}=1)")
        raise ConfigError(problem)
    if not facts.gpus or facts.hidden:
        count = ranks or 1
        why = f"{VISIBLE_VARIABLE} hides any GPU" if facts.hidden else "there is no GPU here"
        return Devices(False, count, f"{_ranks(count)} on CPUs: {why}")
    if declared and declared > len(facts.gpus):
        raise ConfigError(
            f"this machine has {len(facts.gpus)} GPUs for CUDA and each takes one rank: "
            f"{declared} do not fit; start fewer with --ranks, or leave it out"
        )
    count = declared or len(facts.gpus)
    names = ", ".join(dict.fromkeys(gpu.name for gpu in facts.gpus[:count]))
    return Devices(True, count, f"{_ranks(count)}, one a GPU: {names}{_of(facts)}")


def check_batch_covers_ranks(ranks: int, batch_size: int) -> None:
    """Refuses a global batch that leaves ranks without samples. Raises ConfigError."""
    if ranks > batch_size:
        raise ConfigError(
            f"spec.training.batch: {ranks} ranks cannot share a global batch of {batch_size}; "
            "start fewer ranks or raise globalSize"
        )


def _problem(facts: Facts) -> str | None:
    """Returns why the GPUs of this machine cannot be used; None where they can or there are none.

    A GPU that is there and cannot be used is no CPU run: it would take months.
    """
    if facts.hidden:
        return None
    there = facts.installed or facts.cuda_error not in _NO_GPU_ERRORS
    if facts.torch_cuda is None:
        count = facts.installed or len(facts.gpus)
        if not count:
            return None
        return (
            f"this machine has {count} GPUs{_of(facts)}, and torch {facts.torch} was built "
            f"without CUDA: install a torch with CUDA. {_HIDE}"
        )
    needed = int(facts.torch_cuda.split(".")[0])
    if (there or facts.gpus) and facts.driver_cuda and facts.driver_cuda[0] < needed:
        oldest = _OLDEST_DRIVER.get(needed)
        return (
            f"the driver is too old for this torch: {_driver(facts)}, and torch {facts.torch} was "
            f"built for CUDA {facts.torch_cuda}"
            + (f", which needs driver {oldest} or newer" if oldest else "")
            + f". Update the driver, or install torch's wheel for CUDA {facts.driver_cuda[0]} (for "
            f"CUDA 12: cu126). {_HIDE}"
        )
    if facts.gpus or not there:
        return None
    why = f" ({facts.cuda_error})" if facts.cuda_error else ""
    visible = f"; {VISIBLE_VARIABLE} is {facts.visible!r}" if facts.visible is not None else ""
    return (
        f"the driver has {facts.installed} GPUs, and CUDA gives this process none{why}{_of(facts)}"
        f"{visible}: correct {VISIBLE_VARIABLE} if it names others; let the process or container "
        "open /dev/nvidia*; on NVSwitch machines start the fabric manager; nvidia-smi shows what "
        f"the driver has. {_HIDE}"
    )


def unsupported(gpus: Sequence[Gpu], kernels: Sequence[str], torch: str, cuda: str) -> str | None:
    """Returns why these GPUs cannot run the installed torch; None where they can.

    Args:
        gpus: those of the run.
        kernels: `torch.cuda.get_arch_list()`, such as sm_75, sm_90a and compute_120.
        torch, cuda: versions of torch and of the CUDA that it was built for.
    """
    for gpu in gpus:
        if not any(_runs(gpu.capability, kernel) for kernel in kernels):
            major, minor = gpu.capability
            return (
                f"{gpu.name} has compute capability {major}.{minor}, and torch {torch} (CUDA "
                f"{cuda}) has kernels for {', '.join(kernels)} alone: install a torch with "
                f"sm_{major}{minor} (for V100, sm_70: the cu126 wheel, up to torch 2.14), or use "
                f"other GPUs. {_HIDE}"
            )
    return None


def _runs(capability: tuple[int, int], kernel: str) -> bool:
    """Whether a GPU runs kernels: binaries of its major version, or PTX of an older one."""
    kind, _, number = kernel.partition("_")
    exact = number[-1:] in ("a", "f")
    digits = number.rstrip("af")
    if not digits.isdigit():
        return False
    compiled = int(digits[:-1]), int(digits[-1])
    if kind == "compute":
        return not exact and compiled <= capability
    if exact:
        return compiled == capability
    return compiled[0] == capability[0] and compiled <= capability


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


def _driver(facts: Facts) -> str:
    cuda = facts.driver_cuda
    runs = f" runs CUDA {cuda[0]}.{cuda[1]}" if cuda else " runs no CUDA"
    return f"driver {facts.driver or 'of unknown version'}{runs}"


def _of(facts: Facts) -> str:
    return f" ({_driver(facts)})" if facts.driver or facts.driver_cuda else ""


# What the decision is made from


def read_facts(environ: Mapping[str, str]) -> Facts:
    """Returns the facts of this machine. Raises ConfigError where the driver does not answer."""
    known = replace(_torch_facts(), visible=environ.get(VISIBLE_VARIABLE))
    if known.hidden:
        return known
    command = [sys.executable, "-I", str(Path(gpu_facts.__file__))]
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=_ANSWER_S
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"the NVIDIA driver does not answer within {_ANSWER_S:.0f} s: see nvidia-smi and the "
            f"kernel's log (XID errors), or restart the machine. {_HIDE}"
        ) from None
    except ValueError:
        raise ConfigError(
            f"the NVIDIA driver's library crashes ({done.stderr.strip() or done.returncode}): "
            f"reinstall the driver. {_HIDE}"
        ) from None
    gpus = tuple(Gpu(name, (major, minor)) for name, (major, minor) in found["gpus"])
    cuda = found["driver_cuda"]
    return replace(
        known,
        gpus=gpus,
        installed=found["installed"],
        driver=found["driver"],
        driver_cuda=(cuda[0], cuda[1]) if cuda else None,
        cuda_error=found["cuda_error"],
    )


def _torch_facts() -> Facts:
    """Returns the versions that torch's own file states; importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise ConfigError("torch is not installed: pip install 'arlow-pretrain[trainer]'")
    versions = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return Facts(str(versions["__version__"]), versions["cuda"])


def check_torch(expected_gpus: bool, local_rank: int) -> None:
    """Checks in a rank that torch can use its GPU, if it is to have one. Raises ConfigError."""
    if not expected_gpus:
        return
    import torch

    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or local_rank >= count:
        raise ConfigError(
            f"CUDA gives torch {torch.__version__} (CUDA {torch.version.cuda}) {count} GPUs, and "
            f"this is rank {local_rank}: see nvidia-smi, and {VISIBLE_VARIABLE}. {_HIDE}"
        )
    capability = torch.cuda.get_device_capability(local_rank)
    gpu = Gpu(torch.cuda.get_device_name(local_rank), (capability[0], capability[1]))
    kernels = torch.cuda.get_arch_list()
    if problem := unsupported([gpu], kernels, torch.__version__, str(torch.version.cuda)):
        raise ConfigError(problem)
