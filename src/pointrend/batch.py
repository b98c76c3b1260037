"""A model as a function on batches of table columns: for Ray Data, Daft, Spark, Hugging Face datasets.

    rows = ray.data.read_images("s3://bucket/images/", include_paths=True).map_batches(
        Segmenter,
        fn_constructor_args=["photo-semantic"],
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=4),
    )

The object is small and can be pickled: each worker loads the weights when it is first called. examples/cluster has the
same for Daft and Spark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointrend.predict.predictor import MAX_PIXELS, Predictor
from pointrend.predict.results import Failure
from pointrend.predict.rows import result_columns

__all__ = ["Segmenter"]

INPUTS = ("image", "bytes", "path", "url")
"""Columns that may hold the images; the first one of these that is there."""


class Segmenter:
    """Images in, rows out; masks as run lengths, never dense.

    Args:
        model: what `pointrend.load` takes: a name, a file, a folder. Every worker must be able to read it.
        column: that holds the images; by default the first of "image", "bytes", "path", "url". A value is an array
            (H, W, 3) or (H, W) uint8 RGB, the bytes of an image file, a path or an address.
        device, batch_size, max_pixels, min_score, classes: see `Predictor`. Neighbours of one size share a batch.

    Raises:
        ValueError: in the first call, for a model or an option that does not fit.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        column: str | None = None,
        device: str | None = None,
        batch_size: int = 1,
        max_pixels: int = MAX_PIXELS,
        min_score: float | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self.model, self.column = str(model), column
        self.options: dict[str, Any] = {
            "device": device,
            "batch_size": batch_size,
            "max_pixels": max_pixels,
            "min_score": min_score,
            "classes": tuple(classes),
        }
        self._predictor: Predictor | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_predictor": None}

    @property
    def predictor(self) -> Predictor:
        """Loaded when it is first asked for."""
        if self._predictor is None:
            from pointrend.zoo import load

            self._predictor = Predictor(load(self.model), **self.options)
        return self._predictor

    def __call__(self, batch: Mapping[str, Iterable[object]]) -> dict[str, object]:
        """The columns of N images: those of `batch` without the images' pixels, and

        height, width   N int32, 0 where an image failed
        boxes           N lists of [x1, y1, x2, y2], pixels
        labels          N lists of class numbers from 0
        class_names     N lists of names
        scores          N lists of 0..1
        masks           N lists of compressed COCO run lengths of the whole image
        error           N texts: why an image has no result; empty where it has one

        Args:
            batch: columns by name, each of N values: numpy arrays, lists, or a pandas data frame.

        Raises:
            ValueError: no column holds images.
        """
        names = list(batch)
        column = self.column or next((name for name in INPUTS if name in names), None)
        if column is None or column not in names:
            raise ValueError(
                f"column: expected {self.column or ' or '.join(INPUTS)} among the columns, got {', '.join(names)}"
            )
        rows = self._rows(list(batch[column]))
        pixels = column in ("image", "bytes")
        kept = {name: batch[name] for name in names if not (pixels and name == column)}
        return kept | {name: _column([row[name] for row in rows], name) for name in EMPTY}

    def _rows(self, images: list[Any]) -> list[dict[str, object]]:
        read, rows = [], [dict(EMPTY) for _ in images]
        for number, image in enumerate(images):
            try:
                read.append((number, self.predictor.to_tensor(image)))
            except (ValueError, ConnectionError) as error:
                rows[number]["error"] = str(error)
        for batch in self.predictor.batches(read):
            outcomes = self.predictor.predict_batch([(n, f"image {n}", image) for n, image in batch])
            for (number, _), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    rows[number]["error"] = outcome.reason
                else:
                    rows[number] |= result_columns(outcome.result)
        return rows


EMPTY: dict[str, object] = {
    "height": 0,
    "width": 0,
    "boxes": [],
    "labels": [],
    "class_names": [],
    "scores": [],
    "masks": [],
    "error": "",
}


def _column(values: list[object], name: str) -> np.ndarray:
    """Numbers as int32; the rest as objects, which Arrow turns into text and lists of any length."""
    if name in ("height", "width"):
        return np.array(values, dtype=np.int32)
    column = np.empty(len(values), dtype=object)
    for number, value in enumerate(values):
        column[number] = value
    return column
