"""Asks the NVIDIA driver which GPUs there are, without torch: `python gpu_facts.py` prints JSON.

A process of its own, so that a driver that hangs or crashes ends nothing else, and so that the
launcher never holds a GPU. It needs the standard library alone and runs in a tenth of a second.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any

_COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the driver API."""
_TEXT_BYTES = 96


def facts() -> dict[str, Any]:
    """Returns what `devices.Facts` holds of the driver."""
    return _cuda() | _nvml()


def _cuda() -> dict[str, Any]:
    """What CUDA gives this process, CUDA_VISIBLE_DEVICES in any of its forms honoured."""
    found: dict[str, Any] = {"driver_cuda": None, "gpus": [], "cuda_error": None}
    cuda = _library("libcuda.so.1")
    if cuda is None:
        return found
    version = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)) == 0:
        found["driver_cuda"] = [version.value // 1000, version.value % 1000 // 10]
    if code := cuda.cuInit(0):
        found["cuda_error"] = _error_name(cuda, code)
        return found
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    for ordinal in range(count.value):
        device, value = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), ordinal)
        name = ctypes.create_string_buffer(_TEXT_BYTES)
        cuda.cuDeviceGetName(name, _TEXT_BYTES, device)
        capability = []
        for attribute in _COMPUTE_CAPABILITY:
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            capability.append(value.value)
        found["gpus"].append([name.value.decode(errors="replace"), capability])
    return found


def _error_name(cuda: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    if cuda.cuGetErrorName(code, ctypes.byref(name)) == 0 and name.value:
        return name.value.decode(errors="replace")
    return f"error {code}"


def _nvml() -> dict[str, Any]:
    """What the driver manages, whatever this process may use of it."""
    found: dict[str, Any] = {"driver": None, "installed": 0}
    nvml = _library("libnvidia-ml.so.1")
    if nvml is None or nvml.nvmlInit_v2():
        return found
    text, count = ctypes.create_string_buffer(_TEXT_BYTES), ctypes.c_uint()
    if nvml.nvmlSystemGetDriverVersion(text, _TEXT_BYTES) == 0:
        found["driver"] = text.value.decode(errors="replace")
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
        found["installed"] = count.value
    nvml.nvmlShutdown()
    return found


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


if __name__ == "__main__":
    print(json.dumps(facts()))
