"""Between the square grid of a box and the pixels of an image: cropping true masks, pasting predicted ones.

Neither ever makes a full-image mask: both work on the window in which a mask lives.

Shapes: R boxes, G true objects and D detections of one image, S side of the mask grid, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from pointrend.core.gather import neighbours
from pointrend.structures import InstanceMasks

# Probabilities this near to the threshold are interpolated at every pixel: float32 places a pixel on a 1792-cell grid
# up to 4e-4 of a cell beside where it is.
MARGIN = 1e-3

# Boxes of more pixels than this are cropped along one axis and then the other. RoIAlign takes a sample a pixel, at 32
# bytes on a CPU; a predicted box is not clipped in training and may be 62 times as wide as its proposal while the box
# head has learned nothing: 100 GB.
LARGE = 2**18


def crop_masks(masks: InstanceMasks, index: Tensor, boxes: Tensor, side: int) -> Tensor:
    """True masks seen through boxes, as hard targets: (R, side, side) float32, 0 or 1.

    Each cell is the mean of its bin (RoIAlign with one sample a pixel), cut at 0.5, as Detectron2's
    ``BitMasks.crop_and_resize``.

    Args:
        masks: G masks in the pixels that ``boxes`` (R, 4) are in.
        index: (R,) int64, the mask each box looks at.

    Raises:
        ValueError: on a box that is NaN or infinite, with which RoIAlign would read outside of its map.
    """
    if not bool(torch.isfinite(boxes).all()):
        wrong = boxes[~torch.isfinite(boxes).all(1)][0].tolist()
        raise ValueError(f"boxes: expected finite numbers, got {wrong}; leave such boxes out")
    targets = boxes.new_zeros((len(boxes), side, side))
    for number in torch.unique(index).tolist():
        here = torch.nonzero(index == number).squeeze(1)
        window, (left, top) = _with_margin(masks, number, 2)
        if window.numel() == 0:
            continue
        local = boxes[here] - boxes.new_tensor([left, top, left, top])
        large = (local[:, 2:] - local[:, :2]).clamp(min=0).prod(1) > LARGE
        rois = torch.cat([torch.zeros_like(local[:, :1]), local], dim=1)[~large]
        mean = roi_align(
            window.to(boxes)[None, None], rois, side, sampling_ratio=0, aligned=True
        )  # (r, 1, S, S)
        targets[here[~large]] = (mean[:, 0] >= 0.5).to(targets.dtype)
        for place, box in zip(here[large].tolist(), local[large].tolist(), strict=True):
            targets[place] = (_mean_of_bins(window, box, side) >= 0.5).to(targets.dtype)
    return targets


def _mean_of_bins(window: Tensor, box: Sequence[float], side: int) -> Tensor:
    """What RoIAlign gives for a box in a mask (h, w): (side, side) float64, by two products instead of its samples.

    The samples are on a grid, and bilinear weights are products: first all rows are gathered into their bins, then
    all columns.
    """
    left, top, right, bottom = box
    rows = _shares(top, bottom - top, side, window.shape[0]).to(window.device)
    columns = _shares(left, right - left, side, window.shape[1]).to(window.device)
    return rows @ window.double() @ columns.T


def _shares(start: float, extent: float, side: int, length: int) -> Tensor:
    """(side, length) float64: what each of ``length`` pixels contributes to the mean of each bin along one axis."""
    samples = max(1, math.ceil(extent / side))  # of each bin
    step = extent / (side * samples)
    start -= 0.5  # RoIAlign's "aligned": pixel i is at i
    first = min(max(0, math.floor((-1 - start) / step)), side * samples)
    last = min(max(first, math.ceil((length - start) / step) + 1), side * samples)
    number = torch.arange(first, last)  # those that may meet a pixel
    position = start + (number.double() + 0.5) * step
    weight = (
        (position >= -1) & (position <= length)
    ).double() / samples  # RoIAlign repeats the border for a pixel
    near, far, to_near, to_far = neighbours(position, length, border=True)
    found = torch.zeros(side * length, dtype=torch.float64)
    bins = number.div(samples, rounding_mode="floor") * length
    found.scatter_add_(0, bins + near, weight * to_near).scatter_add_(0, bins + far, weight * to_far)
    return found.view(side, length)


def _with_margin(masks: InstanceMasks, number: int, margin: int) -> tuple[Tensor, tuple[int, int]]:
    """A mask's window, wider by a margin of zeros as far as the image goes, and the (x, y) where it starts.

    RoIAlign repeats the border for one pixel outside of its map. At the border of the image this is what
    the original does; at the border of a tight window it would make the object grow.
    """
    window = masks.windows[number] != 0
    x, y = masks.offsets[number].tolist()
    height, width = masks.image_size
    before = (min(margin, x), min(margin, y))
    after = (min(margin, width - x - window.shape[1]), min(margin, height - y - window.shape[0]))
    if window.numel() == 0:
        return window, (x, y)
    return F.pad(window, (before[0], after[0], before[1], after[1])), (x - before[0], y - before[1])


def paste_masks(probabilities: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> InstanceMasks:
    """Put mask probabilities (D, S, S) into their boxes (D, 4): binary masks on windows, on the CPU.

    A pixel belongs to the object where the probability interpolated at its centre is at least 0.5;
    outside of the S x S grid probabilities fade to zero within half a cell (Detectron2
    ``paste_masks_in_image``).

    Args:
        boxes: in pixels of the image, each with a positive size.
        image_size: (H, W) of the image.
    """
    windows, offsets = [], []
    for probability, box in zip(probabilities, boxes, strict=True):
        window, offset = paste_inside(probability.float(), box, image_size, 0.5)
        windows.append(window.cpu())
        offsets.append(offset)
    return InstanceMasks(windows, torch.tensor(offsets, dtype=torch.int64).reshape(-1, 2), image_size)


def paste_window(
    probability: Tensor, box: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """One mask (S, S) at the pixels of its box (4,): a window (h, w) float32 and its top-left pixel (x, y).

    The window is the box, rounded outwards, with a margin of one pixel, as far as the image goes.
    """
    x, y, offset = _pixels(box, image_size)
    if len(x) == 0 or len(y) == 0:
        return probability.new_zeros((len(y), len(x)), dtype=torch.float32), offset
    grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)  # (h, w, 2)
    pasted = F.grid_sample(probability.float()[None, None], grid[None], align_corners=False)
    return pasted[0, 0], offset


def paste_inside(
    probability: Tensor, box: Tensor, image_size: tuple[int, int], threshold: float
) -> tuple[Tensor, tuple[int, int]]:
    """``paste_window(..) >= threshold``, (h, w) bool, bit for bit; the larger the box, the less is interpolated.

    Between four cells that all lie on one side of the threshold, so does every pixel. Only pixels between others, along
    the outline, are interpolated: a byte a pixel, where the whole window takes twelve and twice the time. For a box
    with few pixels, looking at all cells first would cost more.
    """
    x, y, offset = _pixels(box, image_size)
    side = probability.shape[-1]
    if len(x) * len(y) < 16 * side**2:
        return paste_window(probability, box, image_size)[0] >= threshold, offset
    # Cell (i, j) of `kind` is the square between the centres of four cells; zeros surround the mask.
    around = F.pad(probability, (2, 2, 2, 2))[None]
    lowest = -F.max_pool2d(-around, 2, 1)[0]
    highest = F.max_pool2d(around, 2, 1)[0]
    kind = torch.full(lowest.shape, 2, dtype=torch.uint8, device=around.device)  # outline
    kind[lowest > threshold + MARGIN] = 1
    kind[highest < threshold - MARGIN] = 0
    columns, rows = (
        (((at + 1) * side - 1) / 2).floor().add_(2).clamp_(0, side + 2).long() for at in (x, y)
    )  # as grid_sample finds its cells
    window = kind[:, columns][rows]
    row, column = torch.nonzero(window == 2, as_tuple=True)
    grid = torch.stack([x[column], y[row]], dim=-1)[None, None]  # (1, 1, M, 2)
    values = F.grid_sample(probability[None, None], grid, align_corners=False)[0, 0, 0]
    window[row, column] = (values >= threshold).to(torch.uint8)
    return window.view(torch.bool), offset


def _pixels(box: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Centres of a window's columns and rows in the box's [-1, 1], float32, and its top-left pixel (x, y)."""
    height, width = image_size
    x1, y1, x2, y2 = box.tolist()
    left, top = (min(max(math.floor(v) - 1, 0), limit) for v, limit in ((x1, width), (y1, height)))
    right, bottom = (min(max(math.ceil(v) + 1, 0), limit) for v, limit in ((x2, width), (y2, height)))
    box = box.float()
    xs = torch.arange(left, max(right, left), dtype=torch.float32, device=box.device) + 0.5
    ys = torch.arange(top, max(bottom, top), dtype=torch.float32, device=box.device) + 0.5
    x = (xs - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (ys - box[1]) / (box[3] - box[1]) * 2 - 1
    return x, y, (left, top)
