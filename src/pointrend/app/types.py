"""What goes into a rendering (where the sliders are) and what comes out.

Letters: D detections, P points, H W pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from pointrend.core.subdivision import Size
from pointrend.predict.results import Result


@dataclass(frozen=True)
class Settings:
    """Where the sliders are."""

    side: int
    """Cells of the output grid: along the image's longer side (semantic), along each side of a box (instances)."""
    points: int
    """N, predicted in each subdivision step, of each box where there are boxes."""
    min_score: float = 0.5
    """Objects with a lower score are left out; instances only."""

    def within(self, sides: Range, counts: Range) -> Settings:
        """The same, moved inside the ranges: a visitor's numbers may be those of another model."""
        return replace(self, side=sides.nearest(self.side), points=counts.nearest(self.points))


@dataclass(frozen=True)
class Range:
    """What a slider goes through, and where it stands at first; `own` is what the model's configuration says."""

    least: int
    most: int
    step: int
    start: int
    own: int

    @classmethod
    def around(cls, own: int, *, least: int, most: int, step: int) -> Range:
        """Multiples of `step`, of which the one next to `own` comes first."""
        most = max(most // step * step, step)
        least = min(max(-(-least // step) * step, step), most)
        return cls(least, most, step, min(max(round(own / step) * step, least), most), own)

    @classmethod
    def of_points(cls, own: int) -> Range:
        """Up to four times as many points as the model is used to, in sixteenths."""
        step = max(1, own // 16)
        return cls.around(own, least=step, most=4 * own, step=step)

    def nearest(self, value: float) -> int:
        """The value, moved inside; the model's own is always possible."""
        return self.own if value == self.own else int(min(max(value, self.least), self.most))


@dataclass(frozen=True)
class Step:
    """The points that one subdivision step chose, in all regions together."""

    size: Size
    """Rows and columns of the grid of one region."""
    points: Tensor
    """(P, 2) float32, (x, y) in pixels of the image."""
    cells: Tensor
    """(P,) float32, width in the image's pixels of the cell that each point stands for."""

    def inside(self, height: int, width: int) -> Step:
        """Without the points that lie outside of the image (the network saw it padded)."""
        keep = (self.points[:, 0] < width) & (self.points[:, 1] < height)
        return Step(self.size, self.points[keep], self.cells[keep])


@dataclass(frozen=True)
class Rendering:
    """An image with what was found in it at some settings."""

    image: Tensor
    """uint8 (3, H, W)."""
    settings: Settings
    """As they were used."""
    result: Result
    """In the image's pixels."""
    coarse: Result
    """The coarse prediction alone, interpolated."""
    uncertainty: Tensor
    """(H, W) float32 in [0, 1], 1 where undecided; where boxes overlap the least sure one counts."""
    certainty: Tensor | None
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


class Prepared(Protocol):
    """An image that a network has seen."""

    @property
    def sides(self) -> Range:
        """Resolutions that can be asked for."""

    @property
    def counts(self) -> Range:
        """Numbers of points that can be asked for."""

    @property
    def nbytes(self) -> int:
        """Memory that keeping this takes."""

    def render(self, settings: Settings) -> Rendering:
        """Subdivide at these settings; values out of range are moved inside."""


def tensor_bytes(tensors: Sequence[Tensor]) -> int:
    """Memory of tensors that do not share any."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
