"""Where two programs may differ by right: near a point that only one of them refined, its rank being a tie but for
rounding.

Logits that differ in the sixth digit put the last point chosen and the first one left out in either order. What the
point head says of them may differ much (by 0.98 between MMSegmentation's own float32 and float64), so the cells around
such points are left out of a comparison, and only those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.selection import margin_uncertainty
from pointrend.core.subdivision import Size, SubdivisionStep
from pointrend.models.semantic import SemanticSegmenter

ROUNDING = 2e-4
"""Uncertainties this close may be ranked either way: the originals' logits are up to 1e-4 from their float64 ones."""
REACH = 4
"""An exchanged point changes its cell, and after the upsampling that follows its neighbours: fewer cells than this."""
SHIFT = 32
"""Cells of the next grid that one exchanged pair changes, 4 x 4 around each point: the ranking may move by so many."""


def around(cells: Tensor, size: Size) -> Tensor:
    """(h, w) bool -> (H, W) bool: these cells and those within `REACH`, on a grid of another size."""
    near = F.max_pool2d(cells[None].float(), 2 * REACH + 1, 1, REACH)
    return F.adaptive_max_pool2d(near, size)[0] > 0


def undecided(trace: Sequence[SubdivisionStep], size: Size) -> Tensor:
    """(H, W) bool: near a point that rounding may exchange, in the only image of a batch.

    A step whose points may have been exchanged moves the ranking of the next.
    """
    total = torch.zeros(size, dtype=torch.bool)
    shift = 0
    for step in trace:
        rank = margin_uncertainty(step.upsampled)[0].flatten()
        chosen = torch.zeros(len(rank), dtype=torch.bool)
        chosen[step.index[0]] = True
        count = int(chosen.sum())
        if count == len(rank):  # no choice
            continue
        order = rank.sort(descending=True).values
        # At most `shift` cells come in from below the cut, or go: the cut lies between these two ranks.
        leaving = chosen & (rank <= order[max(count - shift, 0)] + ROUNDING)
        entering = ~chosen & (rank >= order[min(count - 1 + shift, len(order) - 1)] - ROUNDING)
        pairs = min(int(leaving.sum()), int(entering.sum()))
        if pairs:
            total |= around((leaving | entering).view(step.size), size)
            shift = SHIFT * pairs
    return total


@contextmanager
def watched(model: SemanticSegmenter) -> Iterator[list[Tensor]]:
    """What is :func:`undecided` in each batch of one image that the model sees meanwhile, without the padding.

    Features of the batch seen last are kept, not computed again.
    """
    features, grids = model.features, model.grids
    last: list = []
    found: list[Tensor] = []

    def features_once(tensor: Tensor) -> dict[str, Tensor]:
        if not last or not torch.equal(last[0], tensor):
            last[:] = [tensor, features(tensor)]
        return dict(last[1])

    def grids_watched(batch, images=None, **options):
        trace: list[SubdivisionStep] = []
        model.logits(batch, trace=trace)
        rows, columns = batch.sizes[0]
        found.append(undecided(trace, batch.padded_size)[:rows, :columns])
        return grids(batch, images, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(model, "features", features_once)
        patch.setattr(model, "grids", grids_watched)
        yield found
