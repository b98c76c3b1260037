"""Predictions onto the disk: images one by one, JSON for all of them as a stream; all written atomically."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image

from pointrend.io import atomic_write, palette_image, write_png, write_text
from pointrend.masks.export import BACKGROUND, as_objects, label_map, outlines, to_voc
from pointrend.metadata import pascal_voc
from pointrend.predict.cutouts import color_profile, cutout, foreground, object_cutouts
from pointrend.predict.inputs import MARKER, Ids
from pointrend.predict.results import Prediction
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import IGNORE_LABEL
from pointrend.visualize.colors import as_palette
from pointrend.visualize.overlays import draw

T = TypeVar("T")

Format = Literal[
    "labels", "coco", "coco-results", "cvat", "label-studio", "yolo", "voc", "labelme", "geojson"
]
FORMATS: tuple[Format, ...] = get_args(Format)
COMPOSED: dict[Format, str] = {
    "coco": "predictions.json",
    "coco-results": "predictions.json",
    "cvat": "cvat/annotations/instances_default.json",
    "label-studio": "label_studio.json",
}
"""Formats that are one file for all images."""


@dataclass(frozen=True)
class Output:
    """What is written of each image."""

    formats: tuple[Format, ...] = ()
    """Label maps of semantic models and "coco" of instance models if empty."""
    overlays: bool = True
    """The prediction drawn on the image."""
    min_drawn_score: float = 0.5
    """Detections below it are not drawn or cut out."""
    cutouts: Literal["none", "image", "objects"] = "none"
    """What was found on transparency: in one file an image, or in one for each object."""

    def __post_init__(self) -> None:
        unknown = [one for one in self.formats if one not in FORMATS]
        if unknown:
            raise ValueError(
                f"format: expected some of {', '.join(FORMATS)}, got {', '.join(map(repr, unknown))}"
            )
        if {"coco", "coco-results"} <= set(self.formats):
            raise ValueError("format: coco and coco-results are both predictions.json; choose one of them")


class Writer:
    """Writes the files of one image after the other, and composes what is written for all of them.

    Args:
        out: the folder.
        names: what is written for each image is called so.
        class_names: of the model.
        ids: of images and classes in COCO files.
        output: what to write.
    """

    def __init__(
        self, out: Path, names: Sequence[str], class_names: Sequence[str], *, ids: Ids, output: Output
    ) -> None:
        self.out, self.names, self.class_names = out, names, tuple(class_names)
        self.ids, self.output = ids, output

    def write(self, prediction: Prediction) -> tuple[list[str], dict[str, object] | None]:
        """Write one image's files: their names in the folder, and what `compose` wants to know of it.

        Raises:
            ValueError: they cannot be written.
        """
        result = prediction.result
        semantic = isinstance(result, SemanticResult)
        files: list[str] = []
        found: dict[str, object] = {}
        try:
            for one in self.output.formats or (("labels",) if semantic else ("coco",)):
                if one in COMPOSED:
                    found[one] = self._entry(one, prediction)
                else:
                    files += self._write(one, prediction)
            if self.output.overlays:
                files.append(f"overlays/{self.names[prediction.number]}.png")
                score = self.output.min_drawn_score
                write_png(
                    draw(prediction.image, result, min_score=score, legend=semantic), self.out / files[-1]
                )
            if self.output.cutouts != "none":
                files += self._write_cutouts(prediction)
        except OSError as error:
            raise ValueError(f"its prediction could not be written ({error})") from error
        return files, found or None

    def start(self) -> None:
        """Mark the folder as one of predictions, and remove what a run that was killed has begun to write."""
        (self.out / MARKER).touch()
        for folder in ("overlays", "labels", "cutouts", "voc", "yolo", "labelme", "geojson"):
            for path in (self.out / folder).rglob(".*.part"):
                path.unlink(missing_ok=True)

    def compose(self, found: Callable[[], Iterator[tuple[int, Any]]]) -> None:
        """The files for all images together; none where no image has anything for them.

        Args:
            found: gives, each time it is called, the images' numbers, ascending, with what `write` returned.
        """
        first = next((one for _, one in islice(found(), 1)), None) or {}
        for name in first:
            with atomic_write(self.out / COMPOSED[name]) as unfinished:
                self._compose(name, unfinished, lambda name=name: (one[name] for _, one in found()))  # type: ignore[misc]
        if "yolo" in self.output.formats:
            listed = "".join(f"  {n}: {json.dumps(name)}\n" for n, name in enumerate(self.class_names))
            write_text(
                self.out / "yolo" / "data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{listed}"
            )
        if "voc" in self.output.formats:
            write_text(self.out / "voc" / "labelmap.txt", self._voc_label_map())

    def _compose(self, one: Format, path: Path, entries: Callable[[], Iterator[Any]]) -> None:
        if one == "label-studio":
            write_json_list(path, entries())
        elif one == "coco-results":
            write_json_list(path, (record for entry in entries() for record in entry["annotations"]))
        else:
            write_coco(path, entries, self._categories())

    def _entry(self, one: Format, prediction: Prediction) -> dict[str, Any]:
        """What the file for all images says of one."""
        if one == "label-studio":
            return prediction.result.to_label_studio(image=str(prediction.path))
        entry = coco_entry(prediction, self.ids, polygons=one == "cvat")
        if one == "cvat":  # finds images by the names that they have in its task
            suffix = Path(str(prediction.path)).suffix
            entry["image"]["file_name"] = self.names[prediction.number].removesuffix(suffix) + suffix
        return entry

    def _write(self, one: Format, prediction: Prediction) -> list[str]:
        """Write the files of one image in one format; their names in the folder."""
        result, name = prediction.result, self.names[prediction.number]
        if one == "voc":
            files = [f"voc/SegmentationClass/{name}.png", f"voc/SegmentationObject/{name}.png"]
            for file, numbers in zip(files, to_voc(result), strict=True):
                image = Image.fromarray(numbers)
                image.putpalette(np.array(pascal_voc.palette(256), np.uint8).tobytes())
                write_png(image, self.out / file)
            return files
        if one == "labels":
            file = f"labels/{name}.png"
            write_png(labels_image(as_label_map(result)), self.out / file)
        elif one == "yolo":
            file = f"yolo/labels/{name}.txt"
            write_text(self.out / file, result.to_yolo())
        else:
            file = f"{one}/{name}.{'json' if one == 'labelme' else 'geojson'}"
            shown = (
                result.to_labelme(image_path=str(prediction.path))
                if one == "labelme"
                else result.to_geojson()
            )
            write_text(self.out / file, json.dumps(shown))
        return [file]

    def _write_cutouts(self, prediction: Prediction) -> list[str]:
        result, name = prediction.result, self.names[prediction.number]
        if isinstance(result, InstanceResult):
            result = result.above(self.output.min_drawn_score)
        cut = [(name, cutout(prediction.image, foreground(result)))]
        if self.output.cutouts == "objects":
            objects = as_objects(result)
            if isinstance(result, SemanticResult):
                objects = objects.of_classes([n for n in objects.class_names if n.lower() not in BACKGROUND])
            cut = [(f"{name}-{own}", rgba) for own, rgba in object_cutouts(prediction.image, objects)]
        files = []
        profile = color_profile(prediction.path)
        for own, rgba in cut:
            files.append(f"cutouts/{own}.png")
            write_png(rgba, self.out / files[-1], icc_profile=profile)
        return files

    def _categories(self) -> list[dict[str, object]]:
        there = zip(self.ids.categories, self.class_names, strict=True)
        return [{"id": number, "name": name} for number, name in there if number is not None]

    def _voc_label_map(self) -> str:
        names = list(self.class_names)
        if not names or names[0].lower() not in BACKGROUND:
            names = ["background", *names]
        colors = zip(names, pascal_voc.palette(len(names)), strict=True)
        lines = [f"{name}:{','.join(map(str, color))}::\n" for name, color in colors]
        return "# label:color_rgb:parts:actions\n" + "".join(lines)


def coco_entry(prediction: Prediction, ids: Ids, *, polygons: bool = False) -> dict[str, Any]:
    """One image's entry in `images` and its records in `annotations`, without ids of their own."""
    objects = as_objects(prediction.result)
    height, width = objects.masks.image_size
    image_id = ids.images[prediction.number]
    categories = [-1 if one is None else one for one in ids.categories]
    areas = objects.masks.areas().tolist()
    found = zip(objects.to_coco(image_id, categories), areas, strict=True)
    records = [record | {"area": area, "iscrowd": 0} for record, area in found]
    if polygons:
        for record, rings in zip(records, outlines(objects, 0.0), strict=True):
            record["segmentation"] = [ring.ravel().tolist() for ring in rings]
        records = [record for record in records if record["segmentation"]]
    image = {"id": image_id, "file_name": str(prediction.path), "height": height, "width": width}
    return {"image": image, "annotations": records}


def write_coco(
    path: Path, entries: Callable[[], Iterator[dict[str, Any]]], categories: Sequence[Mapping[str, object]]
) -> None:
    """One COCO file, image by image: {"annotations": [...], "images": [...], "categories": [...]}.

    Annotations have `score` beside `bbox` (x, y, width, height), `area` and `segmentation`. pycocotools reads the file
    as a data set; its `annotations` alone are what `loadRes` takes. Images without detections are in `images`, too.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        count = 0
        for one in entries():
            for record in one["annotations"]:
                count += 1
                file.write(
                    (",\n" if count > 1 else "\n") + json.dumps({"id": count, **record}, allow_nan=False)
                )
        file.write('\n],\n"images": [')
        for place, one in enumerate(entries()):
            file.write((", " if place else "") + json.dumps(one["image"]))
        file.write(f'],\n"categories": {json.dumps(list(categories))}}}\n')


def write_json_list(path: Path, entries: Iterable[object]) -> None:
    """A JSON list, an entry a line."""
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for place, entry in enumerate(entries):
            file.write((",\n" if place else "\n") + json.dumps(entry, allow_nan=False))
        file.write("\n]\n")


def as_label_map(result: InstanceResult | SemanticResult) -> SemanticResult:
    """A label map as it is; of objects, the class of the surest one at each pixel, 255 where there is none."""
    if isinstance(result, SemanticResult):
        return result
    labels = label_map(result)
    many = len(result.class_names) > 255
    return SemanticResult(labels if many else labels.to(torch.uint8), result.class_names)


def labels_image(result: SemanticResult) -> Image.Image:
    """The label map in 8 bits with the classes' colours as its palette; in 16-bit grey beyond 255 classes."""
    labels = result.labels.cpu().numpy()
    count = max(len(result.class_names), 1 + int(labels[labels != IGNORE_LABEL].max(initial=0)))
    return palette_image(labels, as_palette(result.palette, count).tolist())


def track(items: Iterable[T], total: int, shown: bool) -> Iterator[T]:
    """The items as they are; if `shown`, with a progress bar on stderr, or lines now and then where that is a file."""
    if not shown:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if console.is_terminal:
        yield from bar(items, description="predicting", total=total, console=console)
        return
    console.print(f"predicting {total} {'image' if total == 1 else 'images'}")
    started = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told > PATIENCE and done < total:
            left = (now - started) / done * (total - done)
            console.print(f"{done} of {total} images, about {left:.0f} s left")
            told = now


PATIENCE = 10.0
"""Seconds between two lines of progress."""
