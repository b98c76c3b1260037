"""What goes in, with names and types: masks, targets, samples, data sets; `pointrend.results` has what comes out.

Boxes are ``(x1, y1, x2, y2)`` in continuous pixels, of the image that the object belongs to. Labels are contiguous
``0..K-1``; data set ids are mapped at the edges.

Shapes: D masks, G ground-truth objects, K classes, R points' regions, P points, H W rows and columns.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

Index = Tensor | Sequence[int] | slice
"""Of several things: numbers or flags as a tensor, an array or a list, or a slice."""

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

    def __getitem__(self, index: Index) -> InstanceMasks:
        """The masks with these indices, in their order: a slice, numbers or flags (tensor, array or list)."""
        chosen = indices(index, len(self))
        return InstanceMasks(
            [self.windows[i] for i in chosen.tolist()], self.offsets[chosen], self.image_size
        )

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
class LabelledPoints:
    """P points of each object, in place of its mask (PointSup, arXiv 2104.06404)."""

    coords: Tensor
    """(G, P, 2) float32, (x, y) in pixels of the image, continuous: the centre of pixel 0 is at 0.5."""
    labels: Tensor
    """(G, P) float32: 1 on the object, 0 beside it, -1 ignored (outside of the image)."""

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.coords.shape != (*self.labels.shape, 2):
            raise ValueError(
                f"points: expected coords (G, P, 2) and labels (G, P), got {tuple(self.coords.shape)} and "
                f"{tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> LabelledPoints:
        """The points of the objects with these numbers or flags."""
        return LabelledPoints(self.coords[index], self.labels[index])

    def to(self, device: torch.device | str) -> LabelledPoints:
        """The same on another device."""
        return LabelledPoints(self.coords.to(device), self.labels.to(device))


@dataclass(frozen=True)
class InstanceTarget:
    """The objects of one image, in that image's pixels."""

    boxes: Tensor
    """(G, 4) float32, x1, y1, x2, y2."""
    labels: Tensor
    """(G,) int64 in 0..K-1."""
    masks: InstanceMasks
    """G masks."""
    crowd: Tensor
    """(G,) bool: the region holds many objects; not trained on, not counted against a detection."""
    points: LabelledPoints | None = None
    """Masks are learnt from these instead where they are there; the windows of `masks` may be empty (0 x 0) then."""

    def __post_init__(self) -> None:
        count = len(self.masks)
        if self.boxes.shape != (count, 4) or self.labels.shape != (count,) or self.crowd.shape != (count,):
            raise ValueError(
                f"target with {count} masks: expected boxes ({count}, 4), labels ({count},), crowd ({count},), got "
                f"{tuple(self.boxes.shape)}, {tuple(self.labels.shape)}, {tuple(self.crowd.shape)}"
            )
        if self.points is not None and len(self.points) != count:
            raise ValueError(f"points: expected those of {count} objects, got {len(self.points)}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class SemanticTarget:
    """The label of each pixel of one image."""

    labels: Tensor
    """(H, W) uint8 in 0..K-1, 255 where it does not count."""


class PlacedTarget(Protocol):
    """Objects on their way through transforms, not rasterized yet: `pointrend.data.annotations.PlacedObjects`."""

    def target(self) -> InstanceTarget: ...


Target = InstanceTarget | SemanticTarget | PlacedTarget | None
"""What is known about an image; None where nothing is."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set with what is known about it."""

    image: Tensor
    """(3, H, W) uint8, RGB."""
    target: Target
    """In the pixels of ``image``."""
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

    def as_coco(self) -> dict[str, list[dict[str, object]]] | None:
        """Its annotations in COCO's format, for the official numbers; None where it has no such file."""
        return None

    def instance_ids(self, index: int) -> Tensor:
        """(H, W) ids of an image's instance file; Cityscapes' own metric compares with these.

        Raises:
            ValueError: the data set has no such files.
        """
        raise ValueError("instance ids: only data in Cityscapes' own folders has them")


def indices(index: Index, count: int) -> Tensor:
    """Numbers (int64, on the CPU) that an index chooses among `count` things.

    Raises:
        ValueError: flags that are not `count`, or numbers that are not whole.
        IndexError: a number beyond them.
    """
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.int64)
    try:
        chosen = torch.as_tensor(index).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"index: expected whole numbers, flags, a slice or a name, got {index!r}") from error
    if chosen.dtype == torch.bool:
        if chosen.shape != (count,):
            raise ValueError(f"index: expected a flag for each of {count}, got {tuple(chosen.shape)}")
        return torch.nonzero(chosen).flatten()
    if chosen.numel() and (chosen.dtype.is_floating_point or chosen.ndim != 1):
        raise ValueError(
            f"index: expected a list of whole numbers or flags, got {chosen.dtype} {tuple(chosen.shape)}"
        )
    return torch.arange(count)[chosen.long().flatten()]


def class_name(names: Sequence[str], label: int) -> str:
    """The class's name, or its number where the model was given no names."""
    return names[label] if 0 <= label < len(names) else f"class {label}"


def numbered_names(count: int) -> tuple[str, ...]:
    """ "class 0", "class 1", ..: names where nobody said better ones."""
    return tuple(f"class {number}" for number in range(count))


def are_numbered(names: Sequence[str]) -> bool:
    """Whether nobody named the classes, so that they are `numbered_names`."""
    return tuple(names) == numbered_names(len(names))


def class_number(names: Sequence[str], name: str) -> int:
    """The number of the class with this name; ValueError, naming similar ones, if there is none."""
    if not isinstance(name, str):
        raise ValueError(f"class: expected a name, got {name!r}")
    if name in names:
        return list(names).index(name)
    if not names and name.startswith("class ") and name[6:].isdigit():
        return int(name[6:])
    close = difflib.get_close_matches(name, names, n=3) or list(names[:20])
    shown = ", ".join(close) + (", ..." if len(names) > len(close) else "")
    raise ValueError(f"class {name!r}: expected one of the model's {len(names)} classes ({shown})")
