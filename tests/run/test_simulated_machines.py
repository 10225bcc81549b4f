"""`arlow train` on machines with GPUs that it cannot use: drivers are libraries built here.

Their torch is one for CUDA 13 that nobody can import: the launcher decides without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arlow_trainer.config.errors import ConfigError
from arlow_trainer.run import devices
from arlow_trainer.run.devices import Facts, Gpu, read_facts

CUDA = """
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { char *v = getenv(name); return v ? atoi(v) : 0; }
int cuDriverGetVersion(int *v) { *v = number("SIM_CUDA"); return 0; }
int cuInit(unsigned f) { if (number("SIM_HANG")) for (;;); if (number("SIM_CRASH")) abort();
  return number("SIM_ERROR"); }
int cuGetErrorName(int code, const char **name) {
  *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_SYSTEM_NOT_READY"; return 0; }
int cuDeviceGetCount(int *n) { *n = number("SIM_VISIBLE"); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int n, int d) { strncpy(name, "Quadro RTX 8000", n); return 0; }
int cuDeviceGetAttribute(int *v, int which, int d) { *v = which == 75 ? 7 : 5; return 0; }
"""
NVML = """
#include <stdlib.h>
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned n) {
  strncpy(text, getenv("SIM_DRIVER"), n); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = atoi(getenv("SIM_INSTALLED")); return 0; }
"""
GOOD = {
    "SIM_CUDA": "13000",
    "SIM_DRIVER": "580.65.06",
    "SIM_VISIBLE": "2",
    "SIM_INSTALLED": "2",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with a driver and a torch for CUDA 13."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, cc, to build libraries that pretend to be a driver")
    folder = tmp_path_factory.mktemp("machine")
    for name, source in (("libcuda.so.1", CUDA), ("libnvidia-ml.so.1", NVML)):
        (folder / "source.c").write_text(source)
        command = [compiler, "-shared", "-fPIC", "-o", folder / name, folder / "source.c"]
        subprocess.run(command, check=True)
    torch = folder / "python" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise RuntimeError('the launcher imports torch')")
    (torch / "version.py").write_text("__version__ = '2.13.0+cu130'\ncuda = '13.0'\n")
    paths = [str(torch.parent), os.environ.get("PYTHONPATH", "")]
    environ = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": ":".join(paths)} | GOOD


def test_what_the_driver_says(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_torch_facts", lambda: Facts("2.13.0+cu130", "13.0"))
    rtx = Gpu("Quadro RTX 8000", (7, 5))
    found = read_facts(machine | {"CUDA_VISIBLE_DEVICES": "GPU-1f2e,MIG-3"})
    assert found == Facts(
        "2.13.0+cu130",
        "13.0",
        (rtx, rtx),
        installed=2,
        driver="580.65.06",
        driver_cuda=(13, 0),
        visible="GPU-1f2e,MIG-3",
    )
    assert not read_facts(machine | {"CUDA_VISIBLE_DEVICES": ""}).gpus
    unready = read_facts(machine | {"SIM_ERROR": "802"})
    assert (unready.gpus, unready.cuda_error) == ((), "CUDA_ERROR_SYSTEM_NOT_READY")


def test_a_driver_that_hangs_or_crashes(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_ANSWER_S", 2.0)
    with pytest.raises(ConfigError, match="does not answer within 2 s"):
        read_facts(machine | {"SIM_HANG": "1"})
    with pytest.raises(ConfigError, match="library crashes"):
        read_facts(machine | {"SIM_CRASH": "1"})


@pytest.mark.parametrize(
    ("simulated", "words"),
    [
        (
            {"SIM_CUDA": "12020", "SIM_DRIVER": "535.183.01"},
            ["driver is too old", "535.183.01", "CUDA 12.2", "580 or newer"],
        ),
        (
            {"SIM_ERROR": "100", "CUDA_VISIBLE_DEVICES": "GPU-of-another"},
            ["has 2 GPUs", "'GPU-of-another'", "CUDA_ERROR_NO_DEVICE"],
        ),
        ({"ARLOW_ATTEMPT": "1"}, ["needs 8 GPUs", "CUDA gives this pod 2"]),
    ],
    ids=["an old driver", "none visible", "a pod with too few"],
)
def test_it_ends_in_words_and_not_as_a_run_on_cpus(
    machine: dict[str, str], simulated: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    message = tmp_path / "message"
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("arlow")),
            *("train", "tiny", "--set", f"checkpoint.url={tmp_path}"),
        ],
        env=machine | simulated | {"ARLOW_TERMINATION_LOG": str(message)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    ending = json.loads(message.read_text())
    assert (ending["exitCode"], ending["cause"]) == (78, "config")
    for word in words:
        assert word in " ".join(done.stderr.split())
        assert word in ending["message"]
    assert not (tmp_path / "tiny").exists()
