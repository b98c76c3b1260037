"""What the benchmarks of speed and memory share: sides that take turns, and the peak memory of a call (Linux)."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def alternate(
    calls: Mapping[str, Callable[[], Any]], repeats: int, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of every call, taken in turns; ``clock`` "processor" counts this process's own time alone."""
    now = time.process_time if clock == "processor" else time.perf_counter
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(repeats):
        for way, call in calls.items():
            started = now()
            call()
            times[way].append(now() - started)
    return times


def peak_above_rest(call: Callable[[], Any]) -> int:
    """Bytes of resident memory that a call takes at most, over what is resident before it.

    What earlier calls freed goes back to the kernel first, or this one would find its memory there and seem to need
    none. Make one call before, for the workspaces that libraries keep.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    call()
    return max(0, resident("VmHWM") - before)


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory; "VmHWM": at most, since it was last reset."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
