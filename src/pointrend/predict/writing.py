"""Predictions onto the disk: pictures one by one, COCO JSON as a stream. A file appears when it is complete."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image

from pointrend.predict.files import output_names
from pointrend.predict.outcomes import Prediction
from pointrend.structures import InstanceResult, SemanticResult
from pointrend.visualize.overlays import draw
from pointrend.visualize.palettes import as_palette
from pointrend.whole import umask, whole_file

T = TypeVar("T")


class Writer:
    """Writes what `Predictor.save` promises, prediction by prediction; a context manager.

    Args:
        out: the folder.
        paths: all pictures of the run: they decide the names and the COCO image ids (1, 2, ...).
        class_names: of the model.
        overlays: whether to draw the predictions.
        min_score: detections below it are not drawn.
    """

    def __init__(
        self,
        out: Path,
        paths: Sequence[Path],
        class_names: Sequence[str],
        *,
        overlays: bool,
        min_score: float,
    ) -> None:
        self.out, self.paths, self.class_names = out, paths, tuple(class_names)
        self.names = output_names(paths)
        self.overlays, self.min_score = overlays, min_score
        self.coco: CocoStream | None = None

    def __enter__(self) -> Writer:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{self.out}: cannot be made into a folder for predictions ({error.strerror})"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.coco is not None:
            self.coco.close(keep=kind is None)

    def add(self, prediction: Prediction) -> None:
        """Write one picture's files. ValueError if they cannot be written."""
        result, name = prediction.result, self.names[prediction.number]
        try:
            if isinstance(result, SemanticResult):
                write_labels(result, self.out / "labels" / f"{name}.png")
            else:
                self._add_instances(prediction, result)
            if self.overlays:
                semantic = isinstance(result, SemanticResult)
                picture = draw(prediction.image, result, min_score=self.min_score, legend=semantic)
                write_png(Image.fromarray(picture), self.out / "overlays" / f"{name}.png")
        except OSError as error:
            raise ValueError(f"its prediction could not be written ({error})") from error

    def _add_instances(self, prediction: Prediction, result: InstanceResult) -> None:
        if self.coco is None:
            self.coco = CocoStream(self.out / "predictions.json", self.class_names)
        self.coco.add(prediction.number + 1, prediction.path, result)


class CocoStream:
    """One COCO file written as the pictures come: {"annotations": [...], "images": [...], "categories":
    [...]}.

    Annotations have `score` beside `bbox` (x, y, width, height), `area` and a compressed RLE; category ids
    are 1..K in the order of the model's classes. pycocotools reads the file as a data set; its `annotations`
    alone are what `loadRes` takes. Pictures without detections are in `images`, too.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.path, self.class_names = path, class_names
        self.images: list[dict[str, Any]] = []
        self.count = 0
        self.file: IO[str] = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed by close)
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        )
        self.file.write('{"annotations": [')

    def add(self, image_id: int, path: Path, result: InstanceResult) -> None:
        """Append one picture's detections."""
        height, width = result.masks.image_size
        self.images.append({"id": image_id, "file_name": str(path), "height": height, "width": width})
        ids = range(1, max(len(self.class_names), int(result.labels.max()) + 1 if len(result) else 0) + 1)
        areas = result.masks.areas().tolist()
        for record, area in zip(result.to_coco(image_id, list(ids)), areas, strict=True):
            self.count += 1
            record = {"id": self.count, **record, "area": area, "iscrowd": 0}
            self.file.write((",\n" if self.count > 1 else "\n") + json.dumps(record, allow_nan=False))

    def close(self, *, keep: bool) -> None:
        """Finish the file and give it its name, or (not `keep`) throw it away."""
        categories = [{"id": i, "name": name} for i, name in enumerate(self.class_names, start=1)]
        if keep:
            rest = json.dumps(self.images), json.dumps(categories)
            self.file.write(f'\n],\n"images": {rest[0]},\n"categories": {rest[1]}}}\n')
        self.file.close()
        if keep:
            os.chmod(self.file.name, 0o666 & ~umask())
            os.replace(self.file.name, self.path)
        else:
            os.unlink(self.file.name)


def write_labels(result: SemanticResult, path: Path) -> None:
    """The label map as PNG, see `labels_picture`."""
    write_png(labels_picture(result), path)


def labels_picture(result: SemanticResult) -> Image.Image:
    """The label map in 8 bits with the classes' colours as its palette; in 16-bit grey beyond 255 classes."""
    labels = result.labels.cpu().numpy()
    if labels.max(initial=0) > 255:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    colors = as_palette(result.palette, max(len(result.class_names), int(labels.max(initial=0)) + 1))
    image.putpalette(colors[:256].reshape(-1).tolist())
    return image


def write_png(image: Image.Image, path: Path) -> None:
    """Save as PNG, whole or not at all; folders are made."""
    with whole_file(path) as unfinished:
        image.save(unfinished, format="PNG")


def track(items: Iterable[T], total: int, shown: bool) -> Iterator[T]:
    """The items as they are, with a progress bar on stderr if `shown`."""
    if not shown:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(items, description="predicting", total=total, console=Console(stderr=True))
