"""RoIAlign on channels-last maps, for predictions on a CPU: a weighted sum of table rows for every bin.

torchvision's CPU kernel walks through each channel on its own and in one thread. On a map whose channels lie together
``embedding_bag`` does the same sums over all channels at once. Same definition (``aligned``, as many samples in each
bin as it has cells), same numbers up to rounding.

Shapes: B images, R boxes, C channels, H W rows and columns of a map, S bins a side, G samples a bin along one axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointrend.core.gather import neighbours, weighted_rows

# Rows that are summed in one call; each takes 12 bytes of index and weight.
ROWS_AT_ONCE = 2**21


def pools_by_table(features: Tensor) -> bool:
    """Whether :func:`roi_align_rows` can stand for ``roi_align``: no gradient, a CPU, channels that lie together."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or features.device.type != "cpu":
        return False
    return features.is_contiguous(memory_format=torch.channels_last)


def roi_align_rows(features: Tensor, boxes: Tensor, image_index: Tensor, size: int, stride: float) -> Tensor:
    """Pooled features (R, C, S, S) of boxes (R, 4), of the map's dtype.

    Args:
        features: (B, C, H, W), channels-last.
        boxes: pixels of the network's input. image_index: (R,) int64.
        size: S. stride: input pixels per cell.
    """
    channels, height, width = features.shape[1:]
    table = features.permute(0, 2, 3, 1).reshape(-1, channels)
    pooled = features.new_zeros((len(boxes), size, size, channels))
    start = boxes[:, :2] / stride - 0.5
    extent = boxes[:, 2:] / stride - 0.5 - start
    samples = torch.ceil(extent / size).clamp(min=0).long()  # (R, 2) along x and y
    for across, down in torch.unique(samples, dim=0).tolist():
        if not across or not down:  # a box without area: nothing is sampled, and the mean is zero
            continue
        alike = torch.nonzero((samples[:, 0] == across) & (samples[:, 1] == down)).flatten()
        for here in alike.split(max(1, ROWS_AT_ONCE // (4 * across * down * size**2))):
            columns, to_columns = _axis(start[here, 0], extent[here, 0], size, across, width)
            rows, to_rows = _axis(start[here, 1], extent[here, 1], size, down, height)
            first = (image_index[here] * (height * width))[:, None, None]
            index = (rows * width + first)[:, :, None, :, None] + columns[:, None, :, None, :]
            weights = to_rows[:, :, None, :, None] * to_columns[:, None, :, None, :]  # (r, S, S, 2 Gy, 2 Gx)
            sums = weighted_rows(table, index.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2))
            pooled[here] = sums.view(len(here), size, size, channels)
    return pooled.permute(0, 3, 1, 2)


def _axis(start: Tensor, extent: Tensor, size: int, count: int, cells: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the cells (R, S, 2 G) that the bins of each box take, and their shares of the bin's mean."""
    bins = torch.arange(size, device=start.device)[:, None]
    inside_bin = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) / count
    position = start[:, None, None] + extent[:, None, None] / size * (bins + inside_bin)  # (R, S, G)
    counts = (position >= -1) & (position <= cells)
    first, second, to_first, to_second = neighbours(position, cells, border=True)
    weights = torch.cat((to_first * counts, to_second * counts), -1) / count
    return torch.cat((first, second), -1), weights
