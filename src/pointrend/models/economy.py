"""Points that an inference may leave out: masks that differ a little, for less work. Nothing of this is on by default.

Letters: R boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pointrend.core.subdivision import Size


@dataclass(frozen=True)
class Economy:
    """What a mask head saves; docs/performance.md has what each costs and gains.

    model.mask_head.economy = Economy(cells_per_pixel=1, certain=4)
    """

    cells_per_pixel: float | None = None
    """Stop subdividing a box when its grid has so many cells for each pixel of its longer side, in pixels of the
    network's input; the rest is interpolated. A box of 40 pixels needs no 224x224 cells. None: subdivide fully."""
    certain: float | None = None
    """Leave cells alone whose logit is farther than this from the decision, also where the budget of points would
    reach them. At 4, the probability is below 0.018 or above 0.982. None: spend the budget."""

    def __post_init__(self) -> None:
        for name in ("cells_per_pixel", "certain"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: expected a positive number or None, got {value}")

    def steps(self, boxes: Tensor, start: int, sizes: Sequence[Size]) -> Tensor:
        """(R,) int64: how many of the steps to ``sizes``, from a grid of ``start`` cells a side, each box needs."""
        if self.cells_per_pixel is None or not sizes:
            return torch.full((len(boxes),), len(sizes), device=boxes.device)
        longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
        sides = boxes.new_tensor([start, *(size[0] for size in sizes[:-1])])
        return (sides < self.cells_per_pixel * longer[:, None]).sum(1)
