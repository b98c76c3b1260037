"""What a device can do: multiply in bfloat16 faster than in float32, and hold what is about to be allocated."""

from __future__ import annotations

import os
import sys
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


# What is computed together takes so many bytes: on a CPU more is not faster, on a GPU it saves launches.
WORKING_SET = {"cpu": 2**24, "other": 2**30}


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device, roughly; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def require_memory(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Check that at least ``needed`` bytes are there, before the OOM killer ends the process.

    Raises:
        ValueError: what needs how much, how much there is, and the advice.
    """
    available = available_memory(device)
    if available is not None and needed > available:
        raise ValueError(
            f"{what} needs at least {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available on "
            f"{device}; {advice}"
        )


def peak_memory(device: torch.device | None = None) -> int:
    """The most bytes taken so far: of a GPU's memory by tensors, or of the machine's by this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # type: ignore[import-untyped]

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def fits_at_once(bytes_each: int, device: torch.device) -> int:
    """How many things of so many bytes to compute together on a device; at least 1."""
    return max(1, WORKING_SET.get(device.type, WORKING_SET["other"]) // bytes_each)
