"""Whether a device computes products in bfloat16 faster than in float32."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import torch

CPU_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}
"""Flag of /proc/cpuinfo -> what it stands for; the fastest first."""


@lru_cache(maxsize=1)
def cpu_features() -> frozenset[str]:
    """The flags of the processor; none where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        flag
        for line in lines
        if line.startswith(("flags", "Features"))
        for flag in line.split(":")[1].split()
    )


def bfloat16_unit(device: torch.device) -> str | None:
    """What multiplies bfloat16 there; None where products would be emulated.

    Without one a CPU was eight times slower in bfloat16 than in float32 (docs/performance.md).
    """
    if device.type == "cpu":
        found = cpu_features()
        return next((name for flag, name in CPU_UNITS.items() if flag in found), None)
    if device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(device)
        return f"a GPU of compute capability {major}.{minor}" if major >= 8 else None
    return device.type


def faster_precision(wanted: str, device: torch.device) -> str:
    """The precision that was asked for, or "float32", with a warning, where bfloat16 would be slower."""
    if wanted != "bfloat16" or bfloat16_unit(device) is not None:
        return wanted
    lacks = "AVX-512 BF16, AMX or Arm BF16" if device.type == "cpu" else "compute capability 8.0"
    warnings.warn(
        f"bfloat16: slower than float32 on this {device.type} device, which lacks {lacks}; float32 is used",
        stacklevel=3,
    )
    return "float32"
