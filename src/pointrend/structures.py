"""What goes in and what comes out, with names and types.

Boxes are ``(x1, y1, x2, y2)`` in continuous pixels, of the image that the object belongs to. Labels are contiguous
``0..K-1``; data set ids are mapped at the edges.

Shapes: D detections, G ground-truth objects, K classes, R points' regions, P points, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORE_LABEL = 255
"""The semantic label that counts neither in a loss nor in a metric."""


@dataclass(frozen=True)
class InstanceMasks:
    """Binary masks of one image, each held only on the window it lives in: memory grows with the objects' area.

    Everything outside of its window is background. Windows lie inside the image and may be empty (0 x 0).
    """

    windows: Sequence[Tensor]
    """One (h, w) uint8 or bool tensor an object, non-zero inside."""
    offsets: Tensor
    """(D, 2) int64, (x, y) of each window's top-left pixel in the image."""
    image_size: tuple[int, int]
    """(H, W) of the image."""

    def __post_init__(self) -> None:
        if tuple(self.offsets.shape) != (len(self.windows), 2):
            raise ValueError(
                f"offsets: expected ({len(self.windows)}, 2) for as many windows, got {tuple(self.offsets.shape)}"
            )

    @classmethod
    def from_dense(cls, masks: Tensor) -> InstanceMasks:
        """From (D, H, W) full-image masks, non-zero inside: each is cut to its tight window."""
        if masks.ndim != 3:
            raise ValueError(f"masks: expected (D, H, W), got {tuple(masks.shape)}")
        windows, offsets = [], []
        for mask in masks.bool():
            rows, columns = torch.where(mask.any(1))[0], torch.where(mask.any(0))[0]
            if len(rows) == 0:
                windows.append(mask[:0, :0])
                offsets.append((0, 0))
                continue
            top, left = int(rows[0]), int(columns[0])
            windows.append(mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].clone())
            offsets.append((left, top))
        return cls(
            windows, torch.tensor(offsets, dtype=torch.int64).reshape(-1, 2), (masks.shape[1], masks.shape[2])
        )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Tensor | Sequence[int]) -> InstanceMasks:
        """The masks with these indices (int64 or boolean tensor, or a list of ints), in their order."""
        chosen = torch.as_tensor(index, dtype=None if isinstance(index, Tensor) else torch.int64)
        if chosen.dtype == torch.bool:
            chosen = torch.nonzero(chosen).flatten()
        numbers = chosen.tolist()
        return InstanceMasks([self.windows[i] for i in numbers], self.offsets[chosen.cpu()], self.image_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Full-image (H, W) boolean masks, one at a time."""
        for number in range(len(self)):
            yield self.full(number)

    def full(self, number: int) -> Tensor:
        """One mask in its image: (H, W) bool."""
        window = self.windows[number]
        x, y = self.offsets[number].tolist()
        mask = torch.zeros(self.image_size, dtype=torch.bool, device=window.device)
        mask[y : y + window.shape[0], x : x + window.shape[1]] = window != 0
        return mask

    def dense(self) -> Tensor:
        """All masks in full: (D, H, W) bool. D * H * W bytes: prefer the windows for large images."""
        if len(self) == 0:
            return torch.zeros((0, *self.image_size), dtype=torch.bool)
        return torch.stack(list(self))

    def areas(self) -> Tensor:
        """Pixels inside each mask: (D,) int64."""
        return torch.tensor([int((window != 0).sum()) for window in self.windows], dtype=torch.int64)

    def sample(self, index: Tensor, points: Tensor) -> Tensor:
        """Soft labels at points: bilinear samples of masks, 0 outside of the image.

        The same numbers as sampling the full-image bitmaps with zero padding (Detectron2
        ``point_head.roi_mask_point_loss``), since a mask is zero all round its window.

        Args:
            index: (R,) int64, the mask that each set of points samples.
            points: (R, P, 2) in pixels of the image, continuous (pixel centres at .5).

        Returns:
            (R, P) float32 in [0, 1] on the points' device.
        """
        out = points.new_zeros(points.shape[:2])
        for mask in torch.unique(index).tolist():
            window = self.windows[mask]
            if window.numel() == 0:
                continue
            here = torch.nonzero(index == mask).flatten()
            size = points.new_tensor([window.shape[1], window.shape[0]])
            local = (
                points[here] - self.offsets[mask].to(points)
            ) / size  # (r, P, 2) in the window's unit square
            values = F.grid_sample(
                (window != 0).to(points)[None, None],
                (2 * local - 1).reshape(1, 1, -1, 2),
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
            out[here] = values.reshape(len(here), -1)
        return out


@dataclass(frozen=True)
class InstanceTarget:
    """The objects of one image, in that image's pixels."""

    boxes: Tensor
    """(G, 4) float32."""
    labels: Tensor
    """(G,) int64 in 0..K-1."""
    masks: InstanceMasks
    """G masks."""
    crowd: Tensor
    """(G,) bool: the region holds many objects; not trained on, not counted against a detection."""

    def __post_init__(self) -> None:
        count = len(self.masks)
        if self.boxes.shape != (count, 4) or self.labels.shape != (count,) or self.crowd.shape != (count,):
            raise ValueError(
                f"target with {count} masks: expected boxes ({count}, 4), labels ({count},), crowd ({count},), got "
                f"{tuple(self.boxes.shape)}, {tuple(self.labels.shape)}, {tuple(self.crowd.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class SemanticTarget:
    """The label of each pixel of one image."""

    labels: Tensor
    """(H, W) uint8 in 0..K-1, 255 where it does not count."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set with what is known about it."""

    image: Tensor
    """(3, H, W) uint8, RGB."""
    target: Any
    """InstanceTarget or SemanticTarget in the pixels of ``image``; None where there is none."""
    image_id: int | str
    path: str | None = None


RGB = tuple[int, int, int]
Task = Literal["semantic", "instance"]


class Samples(Protocol):
    """Samples by index: a data set, or a list. Random changes, by torch's generator, are made already."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class Dataset(Samples, Protocol):
    """A data set, as training, evaluation and drawing take it. A class that inherits from this one has to define
    `task`, `class_names`, `image_ids`, `__len__` and `__getitem__`; what else it knows has a default here.
    """

    @property
    def task(self) -> Task:
        """What its targets are: label maps ("semantic") or objects ("instance")."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0..K-1."""

    @property
    def image_ids(self) -> Sequence[int | str]:
        """The id of each image, in their order."""

    @property
    def palette(self) -> tuple[RGB, ...]:
        """A colour (0..255) for each class; empty: a default is used."""
        return ()

    @property
    def category_ids(self) -> Sequence[int]:
        """The number of each class in the data set's own files; 0..K-1 where it has no other."""
        return range(len(self.class_names))

    @property
    def file_names(self) -> Sequence[str]:
        """The file of each image, in their order; empty where images are no files."""
        return ()

    @property
    def image_sizes(self) -> Sequence[tuple[int, int]]:
        """(H, W) of each image as annotated, in their order; empty where that takes reading the images."""
        return ()

    def as_coco(self) -> dict[str, list[dict[str, Any]]] | None:
        """Its annotations in COCO's format, for the official numbers; None where it has no such file."""
        return None

    def instance_ids(self, index: int) -> Tensor:
        """(H, W) ids of an image's instance file; Cityscapes' own metric compares with these.

        Raises:
            ValueError: the data set has no such files.
        """
        raise ValueError("instance ids: only data in Cityscapes' own folders has them")


class Exports:
    """What results give to other programs, :mod:`pointrend.masks.export`: of an instance result each detection, of a
    label map each class that occurs as one object.
    """

    def to_geojson(self, *, tolerance: float = 0.0) -> dict[str, Any]:
        """A GeoJSON FeatureCollection of polygons in pixels, simplified to a tolerance in pixels."""
        from pointrend.masks.export import to_geojson

        return to_geojson(cast(Result, self), tolerance=tolerance)

    def to_labelme(self, *, tolerance: float = 0.0, image_path: str = "") -> dict[str, Any]:
        """LabelMe's JSON with polygons, simplified to a tolerance in pixels."""
        from pointrend.masks.export import to_labelme

        return to_labelme(cast(Result, self), tolerance=tolerance, image_path=image_path)

    def to_rle(self) -> list[dict[str, Any]]:
        """COCO's compressed run lengths: ``size`` (H, W) and ``counts``."""
        from pointrend.masks.export import to_rle

        return to_rle(cast(Result, self))

    def to_supervision(self) -> Any:
        """``supervision.Detections``; needs the package supervision."""
        from pointrend.masks.export import to_supervision

        return to_supervision(cast(Result, self))


@dataclass(frozen=True)
class InstanceResult(Exports):
    """The objects found in one image, best first, in the original image's pixels."""

    boxes: Tensor
    """(D, 4) float32."""
    labels: Tensor
    """(D,) int64 in 0..K-1."""
    scores: Tensor
    """(D,) float32 in [0, 1]."""
    masks: InstanceMasks
    """D masks."""
    class_names: tuple[str, ...] = ()
    uncertainty: Tensor | None = None
    """(D, S, S) float32 in [0, 1] over each box: ``1 - |2 p - 1|`` of the mask probability p, 1 where undecided."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | Sequence[int]) -> InstanceResult:
        """The detections with these indices (int64 or boolean tensor, or a list of ints)."""
        chosen = index if isinstance(index, Tensor) else torch.tensor(list(index), dtype=torch.int64)
        return InstanceResult(
            self.boxes[chosen],
            self.labels[chosen],
            self.scores[chosen],
            self.masks[chosen],
            self.class_names,
            None if self.uncertainty is None else self.uncertainty[chosen],
        )

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Detections as COCO result records: ``image_id, category_id, bbox`` (x, y, width, height), ``score`` and
        ``segmentation`` (compressed RLE).

        Args:
            image_id: the data set's id of the image.
            category_ids: the data set's id of each of the K classes; the contiguous labels if not given.
        """
        from pointrend.masks.rle import encode_windows

        records = []
        for number, rle in enumerate(encode_windows(self.masks)):
            label = int(self.labels[number])
            x1, y1, x2, y2 = (round(float(v), 4) for v in self.boxes[number])
            records.append(
                {
                    "image_id": image_id,
                    "category_id": label if category_ids is None else int(category_ids[label]),
                    "bbox": [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)],
                    "score": float(self.scores[number]),
                    "segmentation": rle,
                }
            )
        return records

    def polygons(self) -> list[list[list[tuple[float, float]]]]:
        """Outlines of each mask along pixel edges: for each of D masks its rings, each a list of (x, y) in pixels.

        Outer rings run clockwise (as seen on the screen), holes counter-clockwise.
        """
        from pointrend.masks.polygons import outline

        return [
            outline(window, offset)
            for window, offset in zip(self.masks.windows, self.masks.offsets.tolist(), strict=True)
        ]

    def plot(self, image: Tensor, **options: Any) -> Figure:
        """The image (3, H, W) uint8 with masks, outlines, names and scores: a matplotlib figure."""
        from pointrend.visualize import plot_instances

        return plot_instances(image, self, **options)


@dataclass(frozen=True)
class SemanticResult(Exports):
    """The label of each pixel of one image."""

    labels: Tensor
    """(H, W) uint8 (int64 beyond 255 classes) in 0..K-1."""
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    """A colour (RGB, 0..255) for each class; empty: a default is used."""
    uncertainty: Tensor | None = None
    """(H, W) float32 in [0, 1]: 1 minus the margin between the two best probabilities, 1 where undecided."""

    def plot(self, image: Tensor, **options: Any) -> Figure:
        """The image (3, H, W) uint8 under its coloured labels, with a legend: a matplotlib figure."""
        from pointrend.visualize import plot_semantic

        return plot_semantic(image, self, **options)


Result = InstanceResult | SemanticResult
"""What a model's `predict` gives for an image."""
