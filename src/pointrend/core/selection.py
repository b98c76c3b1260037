"""Which points: the most uncertain cells of a grid (inference) and a biased random choice (training).

Uncertainty is a number that is larger where the prediction is less sure, measured on *interpolated* logits and
never interpolated itself: between a confident "yes" (+4) and a confident "no" (-4) lies a boundary, where the
interpolated logit is 0 and its uncertainty highest, while the mean of the two uncertainties says "sure".

Shapes: N regions, C classes, P points, H W rows and columns of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from pointrend.core.sampling import cell_centers, point_sample, regular_grid

Uncertainty = Callable[[Tensor], Tensor]
"""Maps logits (N, C, ...) to an uncertainty (N, ...), larger where less sure."""

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Where random numbers come from: torch's own generator, one for all, or one for each region or image."""


def binary_uncertainty(logits: Tensor) -> Tensor:
    """Minus the distance to the decision at logit 0: (N, 1, ...) -> (N, ...), at most 0.

    For class-specific masks, select the channel of the region's class first. Paper section 4.

    Raises:
        ValueError: if there is more than one channel.
    """
    if logits.shape[1] != 1:
        raise ValueError(f"binary uncertainty: expected one channel (N, 1, ...), got {tuple(logits.shape)}")
    return -logits[:, 0].abs()


def margin_uncertainty(logits: Tensor) -> Tensor:
    """Second best logit minus the best: (N, C, ...) with C >= 2 -> (N, ...), at most 0. Paper section 5.

    Raises:
        ValueError: if there are fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise ValueError(
            f"margin uncertainty: expected at least two classes (N, C, ...), got {tuple(logits.shape)}"
        )
    best = torch.topk(logits, k=2, dim=1).values
    return best[:, 1] - best[:, 0]


def probability_margin_uncertainty(logits: Tensor) -> Tensor:
    """Second best probability minus the best, as the paper's text has it: (N, C, ...) with C >= 2 -> (N, ...).

    The published models take the margin of logits, :func:`margin_uncertainty`.
    """
    return margin_uncertainty(logits.softmax(1))


def multilabel_uncertainty(logits: Tensor) -> Tensor:
    """Minus the least distance of a class to its decision at logit 0: (N, C, ...) -> (N, ...), at most 0.

    For classes that do not exclude one another, a sigmoid each; :func:`binary_uncertainty` for C = 1.
    """
    return -logits.abs().amin(1)


def uncertainty_for(num_classes: int) -> Uncertainty:
    """The measure for a prediction with this many channels: 1 is binary, more are exclusive classes."""
    return binary_uncertainty if num_classes == 1 else margin_uncertainty


def most_uncertain_cells(uncertainty: Tensor, num_points: int) -> Tensor:
    """Flat indices ``row * W + column`` of the most uncertain cells: (N, H, W) -> (N, P) int64, in no order.

    P is ``num_points``, or all H*W cells where the grid has fewer. Which of several exactly equal cells are taken
    is up to ``torch.topk``.

    Raises:
        ValueError: if ``num_points`` is below 1 or the shape is another.
    """
    if uncertainty.ndim != 3:
        raise ValueError(f"uncertainty: expected (N, H, W), got {tuple(uncertainty.shape)}")
    if num_points < 1:
        raise ValueError(f"num_points: expected at least one point a step, got {num_points}")
    flat = uncertainty.flatten(1)
    return torch.topk(flat, k=torch.sym_min(num_points, flat.shape[1]), dim=1, sorted=False).indices


def uncertain_cells(uncertainty: Tensor, num_points: int, min_uncertainty: float) -> Tensor:
    """Of :func:`most_uncertain_cells` those above ``min_uncertainty``: (N, P), P of the region with most.

    Other regions get their next most uncertain cells besides.
    """
    index = most_uncertain_cells(uncertainty, num_points)
    values, order = uncertainty.flatten(1).gather(1, index).sort(dim=1, descending=True)
    needed = int((values > min_uncertainty).sum(1).max()) if values.numel() else 0
    return index.gather(1, order[:, :needed])


@dataclass(frozen=True)
class PointSampling:
    """How training points are chosen in each region (paper section 3.1, figure 5, table 4).

    ``oversample_ratio * num_points`` uniform candidates are drawn (k); the ``importance_ratio * num_points`` (beta)
    most uncertain of them are kept, and uniform points fill up to ``num_points`` (N).
    """

    num_points: int = 196
    """N, points for each region."""
    oversample_ratio: float = 3.0
    """k >= 1."""
    importance_ratio: float = 0.75
    """beta in [0, 1]: the share of points chosen by uncertainty."""
    strategy: Literal["biased", "grid", "labelled"] = "biased"
    """"grid": sqrt(N) x sqrt(N) points instead of random ones; "labelled": at labelled pixels alone."""

    def __post_init__(self) -> None:
        if self.num_points < 1 or self.oversample_ratio < 1 or not 0 <= self.importance_ratio <= 1:
            raise ValueError(
                "point sampling: expected num_points >= 1, oversample_ratio >= 1 and importance_ratio in [0, 1], got "
                f"{self.num_points}, {self.oversample_ratio} and {self.importance_ratio}"
            )
        if self.strategy not in ("biased", "grid", "labelled"):
            raise ValueError(f"point sampling: expected biased, grid or labelled, got {self.strategy!r}")
        if self.strategy == "grid" and math.isqrt(self.num_points) ** 2 != self.num_points:
            raise ValueError(
                f"point sampling: a regular grid needs a square number of points, got {self.num_points}"
            )

    @classmethod
    def regular(cls, num_points: int = 196) -> PointSampling:
        """Table 4, "regular grid"."""
        return cls(num_points, 1.0, 0.0, "grid")

    @classmethod
    def uniform(cls, num_points: int = 196) -> PointSampling:
        """Table 4, "uniform": k = 1, beta = 0."""
        return cls(num_points, 1.0, 0.0)

    @classmethod
    def mildly_biased(cls, num_points: int = 196) -> PointSampling:
        """Table 4, "mildly biased": k = 3, beta = 0.75, the paper's choice."""
        return cls(num_points, 3.0, 0.75)

    @classmethod
    def heavily_biased(cls, num_points: int = 196) -> PointSampling:
        """Table 4, "heavily biased": k = 10, beta = 1 (a caption of the paper says beta = 0.75)."""
        return cls(num_points, 10.0, 1.0)


@torch.no_grad()
def sample_training_points(
    coarse: Tensor,
    sampling: PointSampling,
    uncertainty: Uncertainty,
    *,
    generator: Generators = None,
) -> Tensor:
    """Points at which the point head is trained: coarse logits (N, C, H, W) -> (N, P, 2) in [0, 1], no gradient.

    Candidates are judged by the uncertainty of the logits interpolated there. The important points come first.
    ``generator`` makes the draw reproducible (its device may differ from that of ``coarse``); with one for each
    region what a region gets does not depend on those beside it. Regions that share one draw in their order.
    Detectron2 ``point_features.get_uncertain_point_coords_with_randomness``.
    """
    regions = len(coarse)
    device = coarse.device
    if sampling.strategy == "grid":
        side = math.isqrt(sampling.num_points)
        return regular_grid(side, side, regions=regions, device=device)

    def uniform(number: int) -> Tensor:
        return uniform_numbers((regions, number, 2), generator, device)

    important = int(sampling.importance_ratio * sampling.num_points)
    if important == 0:
        return uniform(sampling.num_points)
    candidates = uniform(int(sampling.oversample_ratio * sampling.num_points))
    values = uncertainty(point_sample(coarse.detach(), candidates))  # (N, kN)
    chosen = torch.topk(values, k=important, dim=1).indices
    points = torch.gather(candidates, 1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat((points, uniform(sampling.num_points - important)), dim=1)


@torch.no_grad()
def sample_labelled_points(
    labels: Tensor, num_points: int, *, ignore_label: int = 255, generator: Generators = None
) -> Tensor:
    """Centres of labelled pixels, uniformly and each at most once: labels (N, H, W) -> (N, P, 2) in [0, 1].

    P is ``num_points``, or the most labelled pixels that one of the N label maps has (at least 1); the others get
    ignored pixels besides, which do not count in a loss. ``generator`` as for :func:`sample_training_points`.
    """
    height, width = labels.shape[1:]
    labelled = (labels != ignore_label).flatten(1)
    keys = uniform_numbers((len(labels), height * width), generator, labels.device)
    most = max(1, int(labelled.sum(1).max())) if labelled.numel() else 1
    index = torch.topk(keys.masked_fill(~labelled, -1.0), k=min(num_points, most), dim=1).indices
    return cell_centers(index, height, width)


def uniform_numbers(shape: tuple[int, ...], generator: Generators, device: torch.device) -> Tensor:
    """(N, ...) float32 in [0, 1); with N generators, a row depends on its own alone."""
    if not isinstance(generator, Sequence):
        where = device if generator is None else generator.device
        return torch.rand(shape, generator=generator, device=where).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"generator: expected one for each of {shape[0]} regions, got {len(generator)}")
    drawn = [torch.zeros((0, *shape[1:]), device=device)]
    for own, same in groupby(generator):  # neighbours that share one draw at once
        drawn.append(torch.rand(len(list(same)), *shape[1:], generator=own, device=own.device).to(device))
    return torch.cat(drawn)
