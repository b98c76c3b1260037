"""What comes out of a model: the objects or the label map of an image, and what results can do beside holding tensors.

Formats of other programs and drawings are imported when they are asked for, so that holding a result costs nothing but
torch. Shapes: D detections, K classes, H W rows and columns of the image.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, cast, overload

import torch
from torch import Tensor

from pointrend.structures import IGNORE_LABEL, RGB, Index, InstanceMasks, class_name, class_number, indices

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray
    from pandas import DataFrame
    from supervision import Detections

    from pointrend.masks.rle import CocoDetection, CocoMask
    from pointrend.visualize.overlays import Drawable


@dataclass(frozen=True)
class Detection:
    """One object of an `InstanceResult`."""

    box: Tensor
    """(4,) float32, x1, y1, x2, y2 in pixels of the image."""
    label: int
    score: float
    class_name: str
    masks: InstanceMasks
    """Its mask alone."""

    @property
    def mask(self) -> Tensor:
        """(H, W) bool, in its image."""
        return self.masks.full(0)

    def __repr__(self) -> str:
        x1, y1, x2, y2 = (round(v, 1) for v in self.box.tolist())
        return f"Detection({self.class_name} {self.score:.2f}, box {x1}, {y1}, {x2}, {y2})"


class ResultMethods:
    """Of both kinds of result. Other programs get of an instance result each detection, of a label map each class that
    occurs as one object: see `pointrend.masks.export`.
    """

    @property
    def _result(self) -> Result:
        assert isinstance(self, InstanceResult | SemanticResult)
        return self

    def to_geojson(self, *, tolerance: float = 0.0) -> dict[str, Any]:
        """A GeoJSON FeatureCollection of polygons in pixels, simplified to a tolerance in pixels."""
        from pointrend.masks.export import to_geojson

        return to_geojson(self._result, tolerance=tolerance)

    def to_labelme(self, *, tolerance: float = 0.0, image_path: str = "") -> dict[str, Any]:
        """LabelMe's JSON with polygons, simplified to a tolerance in pixels."""
        from pointrend.masks.export import to_labelme

        return to_labelme(self._result, tolerance=tolerance, image_path=image_path)

    def to_label_studio(self, *, tolerance: float = 0.0, image: str = "") -> dict[str, Any]:
        """A Label Studio task with this as its prediction; `image` is its file or URL, as Label Studio sees it."""
        from pointrend.masks.export import to_label_studio

        return to_label_studio(self._result, tolerance=tolerance, image=image)

    def to_yolo(self, *, tolerance: float = 0.0) -> str:
        """YOLO-seg's label text: a line for each object, class number and outline as shares of width and height."""
        from pointrend.masks.export import to_yolo

        return to_yolo(self._result, tolerance=tolerance)

    def to_rle(self) -> list[CocoMask]:
        """COCO's compressed run lengths: `size` (H, W) and `counts`."""
        from pointrend.masks.export import to_rle

        return to_rle(self._result)

    def to_supervision(self) -> Detections:
        """`supervision.Detections`; needs the package supervision."""
        from pointrend.masks.export import to_supervision

        return to_supervision(self._result)

    def to_pandas(self) -> DataFrame:
        """A pandas DataFrame: a row for each object (class, label, score, x1, y1, x2, y2, area in pixels), of a label
        map for each class that occurs (with score 1).

        Raises:
            ImportError: pandas is not installed.
        """
        from pointrend.masks.export import to_pandas

        return to_pandas(self._result)

    def plot(self, image: Drawable | None = None, **options: Any) -> Figure:
        """A matplotlib figure of the image with the prediction drawn on it.

        Args:
            image: a path, Pillow image, array (H, W, 3) or tensor (3, H, W) uint8 of the result's size; not needed
                where the result remembers its image (`Predictor` results do).
            options: of `plot_instances` or `plot_semantic`.

        Raises:
            ValueError: an image of another size, or none where the result has none.
        """
        from pointrend.visualize.figures import plot_result

        return plot_result(self._result, image, **options)

    def _repr_png_(self) -> bytes:
        """For notebooks: the overlay, at most 1024 pixels long."""
        from pointrend.visualize.overlays import overlay_png

        return overlay_png(self._result)

    def _repr_html_(self) -> str:
        """For notebooks: what the result holds, and the overlay."""
        import base64
        import html

        image = base64.b64encode(self._repr_png_()).decode()
        return f'<p>{html.escape(repr(self))}</p><img src="data:image/png;base64,{image}">'


@dataclass(frozen=True, repr=False)
class InstanceResult(ResultMethods):
    """The objects found in one image, best first, in the original image's pixels::

        result[0]  # one `Detection`; also `for detection in result`
        result[:3], result[flags], result["person"], result.above(0.5)  # fewer objects

    Row n of `boxes`, `labels`, `scores` and `masks` is the same object.
    """

    boxes: Tensor
    """(D, 4) float32, x1, y1, x2, y2."""
    labels: Tensor
    """(D,) int64 in 0..K-1."""
    scores: Tensor
    """(D,) float32 in [0, 1]."""
    masks: InstanceMasks
    """D masks."""
    class_names: tuple[str, ...] = ()
    uncertainty: Tensor | None = None
    """(D, S, S) float32 in [0, 1] over each box: ``1 - |2 p - 1|`` of the mask probability p, 1 where undecided."""
    image: Tensor | None = None
    """(3, H, W) uint8, what was predicted, where `Predictor` did; for drawing."""

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: Index | str) -> InstanceResult: ...

    def __getitem__(self, index: int | Index | str) -> Detection | InstanceResult:
        """One detection by its number; or those of a class, of a slice, or with these numbers or flags.

        Raises:
            IndexError: a number beyond them.
            ValueError: a name that is no class of the model.
        """
        if isinstance(index, str):
            return self[self.labels == class_number(self.class_names, index)]
        if getattr(index, "ndim", None) == 0:  # a number or flag of numpy or torch
            index = cast(Any, index).item()
        if isinstance(index, SupportsIndex) and not hasattr(index, "ndim") and not isinstance(index, bool):
            number = operator.index(index)
            if not -len(self) <= number < len(self):
                raise IndexError(f"index {number}: there are {len(self)} detections")
            number %= len(self)
            label = int(self.labels[number])
            name = class_name(self.class_names, label)
            return Detection(
                self.boxes[number], label, float(self.scores[number]), name, self.masks[[number]]
            )
        chosen = indices(cast(Index, index), len(self))
        there = chosen.to(self.labels.device)
        return replace(
            self,
            boxes=self.boxes[there],
            labels=self.labels[there],
            scores=self.scores[there],
            masks=self.masks[chosen],
            uncertainty=None if self.uncertainty is None else self.uncertainty[there],
        )

    def __iter__(self) -> Iterator[Detection]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.masks.image_size
        best = [f"{one.class_name} {one.score:.2f}" for one in self[:5]]
        rest = [f"{len(self) - 5} more"] if len(self) > 5 else []
        found = f": {', '.join([*best, *rest])}" if best else ""
        return f"InstanceResult({len(self)} object{'' if len(self) == 1 else 's'} in {width}x{height}{found})"

    def above(self, score: float) -> InstanceResult:
        """The detections with at least this score; ValueError for what is no number."""
        if isinstance(score, bool) or not isinstance(score, Real):
            raise ValueError(f"score: expected a number, got {score!r}")
        return self[self.scores >= score]

    def of_classes(self, names: Sequence[str]) -> InstanceResult:
        """The detections of these classes; ValueError for a name that is no class of the model."""
        wanted = torch.tensor(
            [class_number(self.class_names, name) for name in names], dtype=self.labels.dtype
        )
        return self[torch.isin(self.labels.cpu(), wanted)]

    def numpy(self) -> dict[str, ndarray]:
        """Arrays: boxes (D, 4), labels (D,), scores (D,) and masks (D, H, W) bool."""
        found = self.to_dict() | {"masks": self.masks.dense()}
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def to_dict(self) -> dict[str, Tensor]:
        """As torchvision's detection models give it: boxes (D, 4), labels (D,), scores (D,), masks (D, 1, H, W) uint8;
        but labels are 0..K-1, without a background class.
        """
        masks = self.masks.dense()[:, None].to(torch.uint8)
        return {"boxes": self.boxes, "labels": self.labels, "scores": self.scores, "masks": masks}

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[CocoDetection]:
        """Detections as COCO result records: `image_id, category_id, bbox` (x, y, width, height), `score` and
        `segmentation` (compressed RLE).

        Args:
            image_id: the data set's id of the image.
            category_ids: the data set's id of each of the K classes; the contiguous labels if not given.
        """
        from pointrend.masks.export import to_coco

        return to_coco(self, image_id, category_ids)

    def polygons(self) -> list[list[list[tuple[float, float]]]]:
        """Outlines of each mask along pixel edges: for each of D masks its rings, each a list of (x, y) in pixels.

        Outer rings run clockwise (as seen on the screen), holes counter-clockwise.
        """
        from pointrend.masks.polygons import outline

        return [
            outline(window, offset)
            for window, offset in zip(self.masks.windows, self.masks.offsets.tolist(), strict=True)
        ]


@dataclass(frozen=True, repr=False)
class SemanticResult(ResultMethods):
    """The label of each pixel of one image::

        result["person"]  # (H, W) bool, where that class is
        for name in result:  # the classes that occur

    The label map has the image's own size.
    """

    labels: Tensor
    """(H, W) uint8 (int64 beyond 255 classes) in 0..K-1."""
    class_names: tuple[str, ...] = ()
    palette: tuple[RGB, ...] = ()
    """A colour (RGB, 0..255) for each class; empty: a default is used."""
    uncertainty: Tensor | None = None
    """(H, W) float32 in [0, 1]: 1 minus the margin between the two best probabilities, 1 where undecided."""
    image: Tensor | None = None
    """(3, H, W) uint8, what was predicted, where `Predictor` did; for drawing."""

    def __getitem__(self, name: str | int) -> Tensor:
        """(H, W) bool: where a class is, given by its name or number; ValueError for what is no class."""
        if not isinstance(name, str | SupportsIndex):
            raise ValueError(f"class: expected a name or a number, got {name!r}")
        label = class_number(self.class_names, name) if isinstance(name, str) else operator.index(name)
        if label < 0 or (self.class_names and label >= len(self.class_names)):
            raise ValueError(f"class: expected a number from 0 to {len(self.class_names) - 1}, got {label}")
        return self.labels == label

    def __iter__(self) -> Iterator[str]:
        return iter([class_name(self.class_names, label) for label in self._counts()])

    def __repr__(self) -> str:
        height, width = self.labels.shape
        counts = sorted(self._counts().items(), key=lambda item: -item[1])
        shares = [
            f"{class_name(self.class_names, label)} {count / max(1, self.labels.numel()):.0%}"
            for label, count in counts[:5]
        ]
        rest = [f"{len(counts) - 5} more"] if len(counts) > 5 else []
        found = f": {', '.join([*shares, *rest])}" if shares else ""
        return f"SemanticResult({width}x{height}{found})"

    def of_classes(self, names: Sequence[str]) -> SemanticResult:
        """The label map with all pixels of other classes ignored (255).

        Raises:
            ValueError: a name that is no class of the model, or more classes than 255.
        """
        if len(self.class_names) > IGNORE_LABEL:
            raise ValueError(f"classes: cannot be chosen among {len(self.class_names)}; 255 means ignored")
        wanted = [class_number(self.class_names, name) for name in names]
        others = ~torch.isin(
            self.labels, torch.tensor(wanted, dtype=self.labels.dtype, device=self.labels.device)
        )
        return replace(self, labels=self.labels.masked_fill(others, IGNORE_LABEL))

    def numpy(self) -> ndarray:
        """The label map as an array (H, W)."""
        return self.labels.cpu().numpy()

    def to_dict(self) -> dict[str, Tensor]:
        """{"labels": (H, W)}."""
        return {"labels": self.labels}

    def _counts(self) -> dict[int, int]:
        """Pixels of each class that occurs, without those ignored."""
        labels, counts = torch.unique(self.labels, return_counts=True)
        return {
            label: count
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
            if label != IGNORE_LABEL or len(self.class_names) > IGNORE_LABEL
        }


Result = InstanceResult | SemanticResult
"""What a model's `predict` gives for an image."""


class HasClassNames(Protocol):
    """A configuration that names the classes 0..K-1."""

    @property
    def class_names(self) -> Sequence[str]: ...


class Model(Protocol):
    """What predicts: a model of this package, one with views or windows around it, or an exported file."""

    @property
    def config(self) -> HasClassNames:
        """Its configuration."""

    def predict(self, images: Sequence[Tensor], *args: Any, **options: Any) -> Sequence[Result]:
        """A result for each image, uint8 (3, H, W) RGB of any sizes."""
