"""What a rendering takes (the sliders' values) and what it returns.

Shapes: P points, H W pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pointrend.core.subdivision import Size
from pointrend.results import Result


@dataclass(frozen=True)
class Settings:
    """Values of the sliders; the model's own where None."""

    resolution: int | None = None
    """Cells of the output grid: along the image's longer side (semantic), along each side of a box (instances)."""
    points: int | None = None
    """Predicted in each subdivision step, for each box where there are boxes."""
    min_score: float = 0.5
    """Objects with a lower score are left out; instances only."""


@dataclass(frozen=True)
class Range:
    """The values of a slider."""

    minimum: int
    maximum: int
    step: int
    start: int
    """Where the slider stands at first: next to `own`."""
    own: int
    """What the model's configuration says."""

    @classmethod
    def around(cls, own: int, *, minimum: int, maximum: int, step: int) -> Range:
        """Multiples of `step`, of which the one next to `own` comes first."""
        maximum = max(maximum // step * step, step)
        minimum = min(max(-(-minimum // step) * step, step), maximum)
        return cls(minimum, maximum, step, min(max(round(own / step) * step, minimum), maximum), own)

    @classmethod
    def of_points(cls, own: int) -> Range:
        """Up to four times as many points as the model's own, in sixteenths of it."""
        step = max(1, own // 16)
        return cls.around(own, minimum=step, maximum=4 * own, step=step)

    def clamp(self, value: int | None) -> int:
        """The value, moved inside (it may come from another model's slider); `own` is always possible."""
        if value is None:
            return self.start
        return value if value == self.own else min(max(value, self.minimum), self.maximum)


@dataclass(frozen=True)
class Step:
    """The points of one subdivision step, in all regions together."""

    size: Size
    """Rows and columns of the grid of one region."""
    points: Tensor
    """(P, 2) float32, (x, y) in pixels of the image."""
    cells: Tensor
    """(P,) float32, width in the image's pixels of the cell that each point stands for."""

    def inside(self, height: int, width: int) -> Step:
        """Without the points outside of the image: the network saw it padded."""
        keep = (self.points[:, 0] < width) & (self.points[:, 1] < height)
        return Step(self.size, self.points[keep], self.cells[keep])


@dataclass(frozen=True)
class Rendering:
    """What was predicted for an image at some settings."""

    image: Tensor
    """uint8 (3, H, W)."""
    result: Result
    """In the image's pixels."""
    coarse: Result
    """The coarse prediction alone, interpolated."""
    uncertainty: Tensor
    """(H, W) float32 in [0, 1], 1 where undecided; where boxes overlap the least sure one counts."""
    probability: Tensor | None
    """(H, W) float32, probability of the label shown; None for instances, which have their score."""
    steps: Sequence[Step]
    regions: int
    """1 for a whole image, else the number of boxes."""
    grid: Size
    """Rows and columns of the output of one region."""
    computed: int
    """Points predicted in one region, all steps together."""
    seconds: float
    """Of the subdivision."""
    feature_seconds: float
    """Of everything before it, which is done once for an image and a model."""

    @property
    def share(self) -> float:
        """Points predicted over cells of the output: what subdivision saves; 0 where there is no region."""
        return self.computed / (self.grid[0] * self.grid[1]) if self.regions else 0.0


class Session(Protocol):
    """An image and its features, to be rendered at any settings."""

    resolutions: Range
    points: Range

    @property
    def nbytes(self) -> int:
        """Memory that the features take."""

    def render(self, settings: Settings) -> Rendering:
        """Subdivide at these settings; values out of range are moved inside."""


def tensor_bytes(tensors: Sequence[Tensor]) -> int:
    """Memory of tensors that do not share any."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
