"""Predictions onto the disk: images one by one, COCO JSON as a stream. A file appears when it is complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from pointrend.io import atomic_write, write_png
from pointrend.predict.results import Prediction
from pointrend.structures import InstanceResult, SemanticResult
from pointrend.visualize.colors import as_palette
from pointrend.visualize.overlays import draw

T = TypeVar("T")


class Writer:
    """Writes the files of one image after the other, and composes what is written for all of them.

    Args:
        out: the folder.
        names: what is written for each image is called so.
        class_names: of the model.
        overlays: whether to draw the predictions.
        min_score: detections below it are not drawn.
    """

    def __init__(
        self,
        out: Path,
        names: Sequence[str],
        class_names: Sequence[str],
        *,
        overlays: bool,
        min_score: float,
    ) -> None:
        self.out, self.names, self.class_names = out, names, tuple(class_names)
        self.overlays, self.min_score = overlays, min_score

    def write(self, prediction: Prediction) -> tuple[list[str], dict[str, Any] | None]:
        """Write one image's files: their names in the folder, and what `compose` wants to know of it.

        Raises:
            ValueError: they cannot be written.
        """
        result, name = prediction.result, self.names[prediction.number]
        files: list[str] = []
        found = None
        try:
            if isinstance(result, SemanticResult):
                files.append(f"labels/{name}.png")
                write_labels(result, self.out / files[-1])
            else:
                found = instances(prediction.path, result)
            if self.overlays:
                files.append(f"overlays/{name}.png")
                semantic = isinstance(result, SemanticResult)
                image = draw(prediction.image, result, min_score=self.min_score, legend=semantic)
                write_png(image, self.out / files[-1])
        except OSError as error:
            raise ValueError(f"its prediction could not be written ({error})") from error
        return files, found

    def clean(self) -> None:
        """Remove what a run that was killed has begun to write."""
        for folder in ("overlays", "labels"):
            for path in (self.out / folder).rglob(".*.part"):
                path.unlink(missing_ok=True)

    def compose(self, found: Callable[[], Iterator[tuple[int, Any]]]) -> None:
        """`predictions.json` of an instance model: one COCO file, see `write_coco`; nothing for others.

        Args:
            found: gives, each time it is called, the images' numbers, ascending, with what `write` returned.
        """
        if any(one is not None for _, one in islice(found(), 1)):
            with atomic_write(self.out / "predictions.json") as unfinished:
                write_coco(unfinished, found, self.class_names)


def instances(path: Path, result: InstanceResult) -> dict[str, Any]:
    """One image's detections as COCO records without the numbers that only the whole file gives them."""
    height, width = result.masks.image_size
    ids = range(1, (int(result.labels.max()) if len(result) else 0) + 2)
    records = [
        record | {"area": area, "iscrowd": 0}
        for record, area in zip(result.to_coco(0, ids), result.masks.areas().tolist(), strict=True)
    ]
    return {"image": {"file_name": str(path), "height": height, "width": width}, "annotations": records}


def write_coco(
    path: Path, found: Callable[[], Iterator[tuple[int, Any]]], class_names: Sequence[str]
) -> None:
    """One COCO file, image by image: {"annotations": [...], "images": [...], "categories": [...]}.

    Annotations have `score` beside `bbox` (x, y, width, height), `area` and a compressed RLE; category ids are 1..K in
    the order of the model's classes, image ids 1, 2, ... in that of the images. pycocotools reads the file as a data
    set; its `annotations` alone are what `loadRes` takes. Images without detections are in `images`, too.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        count = 0
        for number, one in found():
            for record in one["annotations"]:
                count += 1
                record = {"id": count, **record, "image_id": number + 1}
                file.write((",\n" if count > 1 else "\n") + json.dumps(record, allow_nan=False))
        file.write('\n],\n"images": [')
        for place, (number, one) in enumerate(found()):
            file.write((", " if place else "") + json.dumps({"id": number + 1, **one["image"]}))
        categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
        file.write(f'],\n"categories": {json.dumps(categories)}}}\n')


def write_labels(result: SemanticResult, path: Path) -> None:
    """The label map as PNG, see `labels_image`."""
    write_png(labels_image(result), path)


def labels_image(result: SemanticResult) -> Image.Image:
    """The label map in 8 bits with the classes' colours as its palette; in 16-bit grey beyond 255 classes."""
    labels = result.labels.cpu().numpy()
    if labels.max(initial=0) > 255:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    colors = as_palette(result.palette, max(len(result.class_names), int(labels.max(initial=0)) + 1))
    image.putpalette(colors[:256].reshape(-1).tolist())
    return image


def track(items: Iterable[T], total: int, shown: bool) -> Iterator[T]:
    """The items as they are, with a progress bar on stderr if `shown`."""
    if not shown:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(items, description="predicting", total=total, console=Console(stderr=True))
