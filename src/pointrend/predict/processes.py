"""The processes that torchrun started share one run: who is who, and waiting for each other."""

from __future__ import annotations

import os
from datetime import timedelta

import torch


class Processes:
    """This process among those of the run; alone without torchrun."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1 and not torch.distributed.is_initialized():
            # No data travels, so gloo will do; the fastest waits for the slowest, however long that takes.
            torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))

    @property
    def first(self) -> bool:
        """Whether this is the process that opens, finishes and speaks."""
        return main_process()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()


def main_process() -> bool:
    """Whether this is the process that speaks: the only one, or the first of torchrun's."""
    return int(os.environ.get("RANK", "0")) == 0


def local_device() -> str:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
