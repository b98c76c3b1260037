"""Options of the training engine, which `pointrend train` and `pointrend finetune` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Engine:
    """How the training runs on this machine, and what is shown of it."""

    accumulate: int = 1
    """Parts that each process computes its share of an update in, one after the other, to save memory."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the network; weights, coordinates and losses stay float32. float16 needs a GPU."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999, which is then what is scored and saved; 0: none."""
    channels_last: bool = False
    """Lay convolutions out in memory as tensor cores like them."""
    compile: str | None = None
    """Compile the backbone by this torch.compile backend, such as inductor."""
    workers: int = 0
    """Processes that read pictures beside the training."""
    cpu: bool = False
    """Stay on the CPU where there is a GPU."""
    limit: int | None = None
    """Score at most so many pictures of the validation part; 200, or all for a published training, if not given."""
    draw_every: int = 0
    """Updates between pictures of predictions and of the points chosen for them, in OUT/pictures; 0: none."""
    wandb: str | None = None
    """Project at Weights & Biases that numbers and pictures go to as well."""
    resume: bool = False
    """Go on from the newest checkpoint in OUT; from the start where there is none."""
