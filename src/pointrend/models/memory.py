"""How much fits into memory: how many at once, and a refusal of what cannot before it is allocated.

Without the latter the operating system kills the process, wordlessly.
"""

from __future__ import annotations

import os

import torch

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
    """Check that at least ``needed`` bytes are there.

    Raises:
        ValueError: what needs how much, how much there is, and the advice.
    """
    available = available_memory(device)
    if available is not None and needed > available:
        raise ValueError(
            f"{what} needs at least {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available on "
            f"{device}; {advice}"
        )


def fits_at_once(bytes_each: int, device: torch.device) -> int:
    """How many things of so many bytes to compute together on a device; at least 1."""
    return max(1, WORKING_SET.get(device.type, WORKING_SET["other"]) // bytes_each)
