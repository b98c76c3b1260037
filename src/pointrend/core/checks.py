"""What PointRend takes, looked at before anything is computed.

Shapes: N images or regions, C classes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pointrend.core.sampling import Placement
from pointrend.core.subdivision import Size, subdivision_sizes

Features = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""One map (N, C, H, W), several, or a dictionary of them, whose order counts; (1, C, H, W) is shared by all N."""


def check_maps(
    coarse: Tensor,
    features: Features,
    num_classes: int,
    fine_channels: int,
    boxes: Tensor | None = None,
    image_size: Size | None = None,
    image_index: Tensor | None = None,
) -> tuple[Sequence[Tensor], Placement | None]:
    """The maps in order, and where regions lie in their images.

    Raises:
        ValueError: coarse logits, maps and boxes do not fit each other, or not so many classes and channels.
    """
    if isinstance(features, Tensor):
        features = [features]
    maps = list(features.values()) if isinstance(features, Mapping) else list(features)
    regions, channels = coarse.shape[0], [level.shape[1] if level.ndim == 4 else None for level in maps]
    if coarse.ndim == 5 or any(level.ndim == 5 for level in maps):
        raise ValueError(
            "expected two-dimensional maps (N, C, H, W), got volumes (N, C, D, H, W): PointRend refines "
            "images; refine a volume slice by slice"
        )
    if coarse.ndim != 4 or coarse.shape[1] != num_classes or 0 in coarse.shape[2:]:
        raise ValueError(f"coarse: expected (N, {num_classes}, H, W) logits, got {tuple(coarse.shape)}")
    if None in channels or sum(c or 0 for c in channels) != fine_channels:
        raise ValueError(
            f"features: expected maps (N, C, H, W) with {fine_channels} channels in all, "
            f"got {[tuple(level.shape) for level in maps]}; turn maps (N, H, W, C) by movedim(-1, 1)"
        )
    if (boxes is None) is not (image_size is None) or (boxes is None and image_index is not None):
        raise ValueError("boxes: expected boxes and image_size (and image_index) together")
    images = [level.shape[0] for level in maps]  # no set: torch.export cannot hash a dynamic size
    if boxes is None:
        if any(count != 1 and count != regions for count in images):
            raise ValueError(f"features: expected N = {regions}, or 1 for maps that all share, got {images}")
        return maps, None
    if boxes.shape != (regions, 4):
        raise ValueError(f"boxes: expected ({regions}, 4), one a coarse prediction, got {tuple(boxes.shape)}")
    if any(count != images[0] for count in images) or (images[0] != 1 and image_index is None):
        raise ValueError(f"features: expected one image, or image_index, got maps of {images} images")
    assert image_size is not None
    rows, columns = image_size
    return maps, Placement(boxes / boxes.new_tensor([columns, rows, columns, rows]), image_index)


def check_labels(labels: Tensor, num_classes: int, ignore_label: int) -> None:
    """Raise a ValueError where a label is neither in 0..C-1 nor ignored (torch would crash or count it silently)."""
    wrong = (labels != ignore_label) & ((labels < 0) | (labels >= num_classes))
    if bool(wrong.any()):
        found = sorted(set(labels[wrong].tolist()))[:5]
        raise ValueError(
            f"labels: expected 0..{num_classes - 1} or {ignore_label} (ignored), got {found}; "
            "map the data set's ids to contiguous labels first"
        )


class LabelCheck:
    """Looks at the labels of a loss; on a GPU at the first ones alone, since that waits for the device.

    Args:
        num_classes: C. multilabel: a sigmoid for each of them.
    """

    def __init__(self, num_classes: int, multilabel: bool) -> None:
        self.num_classes, self.multilabel = num_classes, multilabel
        self.done = self.object_seen = False

    def __call__(self, labels: Tensor, images: int, ignore_label: int) -> Tensor:
        """The labels as (N, 1 or C, H, W); ValueError for another shape or type, and for others than 0..C-1."""
        channels = self.num_classes if self.multilabel else 1
        exclusive = self.num_classes > 1 and not self.multilabel
        if labels.ndim == 3 and channels == 1:
            labels = labels[:, None]
        if labels.ndim != 4 or labels.shape[:2] != (images, channels):
            shape = f"(N, {channels}, H, W)" if self.multilabel else "(N, H, W)"
            raise ValueError(f"labels: expected {shape} with N = {images}, got {tuple(labels.shape)}")
        if exclusive and labels.is_floating_point():
            raise ValueError(f"labels: expected integers, got {labels.dtype}; convert them with .long()")
        if not torch.compiler.is_compiling() and (labels.device.type == "cpu" or not self.done):
            self.done = True
            if exclusive:
                check_labels(labels, self.num_classes, ignore_label)
            else:
                self._check_binary(labels, ignore_label)
        return labels

    def _check_binary(self, labels: Tensor, ignore_label: int) -> None:
        inside = labels[labels != ignore_label]
        if bool((inside > 1).any()):
            check_labels(labels.ceil(), 2, ignore_label)
        check_labels(labels, 2, ignore_label)
        self.object_seen = self.object_seen or bool((inside > 0).any())
        if not self.object_seen and ignore_label == 255 and 0 < inside.numel() < labels.numel():
            raise ValueError(
                "labels: only 0 and 255 occur, and 255 is ignored. If it marks the object, divide the labels by "
                "255; if these pixels are to be ignored, give them another number and pass it as ignore_label, such "
                "as -1"
            )


def check_start(
    coarse: Tensor, size: Size | int, sizes: Sequence[Size] | None
) -> tuple[Tensor, Sequence[Size]]:
    """The logits that subdivision starts from, at least float32, and the grids that it passes through.

    Raises:
        ValueError: another form of ``size``, or logits that are not finite.
    """
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or any(isinstance(side, float | str) for side in pair):
        raise ValueError(f"size: expected rows and columns, or one number of cells, got {size!r}")
    if not torch.compiler.is_compiling() and not bool(coarse.isfinite().all()):
        raise ValueError("coarse: some logits are NaN or infinite; look for the cause in the network before")
    start, output = (coarse.shape[2], coarse.shape[3]), (pair[0], pair[1])
    steps = subdivision_sizes(start, output) if sizes is None else sizes
    return coarse.to(torch.promote_types(coarse.dtype, torch.float32)), steps
