"""Detections from a file: a COCO results list, or the COCO data set with scores that `pointrend predict` writes.

The second names its own images and classes, with ids of its own. They become those of the data set that is scored:
images by file name (an id alone could be another image's), classes by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pointrend.evaluation.ground_truth import full_dataset
from pointrend.evaluation.loop import InstanceStore
from pointrend.formats.coco_results import KnownIds, Records, check_records
from pointrend.formats.file_names import FileNames
from pointrend.formats.records import Id, brief
from pointrend.io import read_json
from pointrend.structures import Dataset, Sample

__all__ = ["ExternalDetections", "read_detections"]


def read_detections(path: str | Path, data: Dataset) -> list[object]:
    """The detections in the file, with the ids of the data set's images and classes where the file has its own.

    Of a plain list nothing is checked here: `check_records` does that.

    Args:
        path: a JSON list of detections, or an object with `images`, `categories` and `annotations` that have scores.
        data: the data set, or a part of it.

    Raises:
        ValueError: naming file, id and field, if an image or class of the file is not in the data set, has another
            size there or is named twice, or if an image to be scored is not in the file.
    """
    content = read_json(path)
    if isinstance(content, list):
        return content
    annotations = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(annotations, list):
        raise ValueError(
            f"{path}: expected a list of detections, or an object with images, categories and annotations,"
            f" got {type(content).__name__}"
        )
    file = _File(str(path), content)
    images = file.images(data)
    there = set(images.values())
    missing = [one for one in data.image_ids if one not in there]
    if missing:
        name = _by_image(full_dataset(data), full_dataset(data).file_names).get(missing[0])
        which = f"image {brief(missing[0])} of the data set" + (f" ({name})" if name else "")
        raise ValueError(
            f"{path}: images: {which} is not among them; predict all {len(data.image_ids)} images,"
            " or score fewer by --limit"
        )
    return file.records(annotations, images, file.classes(data))


T = TypeVar("T")


class _File:
    """One COCO data set with scores."""

    def __init__(self, source: str, content: Mapping[str, object]) -> None:
        self.source, self.content = source, content

    def images(self, data: Dataset) -> dict[Id, Id]:
        """The data set's id of each image of the file."""
        every = full_dataset(data)
        names, sizes = _by_image(every, every.file_names), _by_image(every, every.image_sizes)
        found: dict[Id, Id] = {}
        taken: set[Id] = set()
        known = set(every.image_ids)
        finder = FileNames(names)
        for own, record in self._by_id("image", "images").items():
            where = f"{self.source}: image {brief(own)}"
            chosen = self._image(where, own, record.get("file_name"), known, finder)
            size = (record.get("height"), record.get("width"))
            if sizes and size != (None, None) and size != sizes[chosen]:
                raise ValueError(
                    f"{where}: height, width: expected the image's {sizes[chosen]}, got {brief(size)};"
                    " predict the images of the data set as they are"
                )
            if chosen in taken:
                raise ValueError(f"{where}: file_name: image {brief(chosen)} of the data set is there twice")
            taken.add(chosen)
            found[own] = chosen
        return found

    def classes(self, data: Dataset) -> dict[Id, int | None] | None:
        """The data set's id of each class of the file, None for classes that it lacks; None if the file names none."""
        if "categories" not in self.content:
            return None
        known = dict(zip(data.class_names, data.category_ids, strict=True))
        found: dict[Id, int | None] = {}
        names: set[str] = set()
        for own, record in self._by_id("category", "categories").items():
            name = record.get("name")
            if not isinstance(name, str) or name in names:
                problem = "is there twice" if isinstance(name, str) else "expected a text"
                raise ValueError(f"{self.source}: category {brief(own)}: name: {brief(name)} {problem}")
            names.add(name)
            found[own] = known.get(name)
        missing = [name for name in known if name not in names]
        if missing:
            raise ValueError(
                f"{self.source}: categories: {brief(missing[0])}, a class of the data set, is not among"
                f" {brief(sorted(names))}"
            )
        return found

    def records(
        self, annotations: list[object], images: Mapping[Id, Id], classes: Mapping[Id, int | None] | None
    ) -> list[object]:
        """The annotations with the data set's ids; those of classes that it lacks are left out."""
        changed: list[object] = []
        for number, record in enumerate(annotations):
            where = f"{self.source}: record {number}"
            if not isinstance(record, Mapping):
                raise ValueError(f"{where}: expected an object, got {type(record).__name__}")
            fresh = {**record, "image_id": self._own(where, "image_id", record, images, "images")}
            if classes is not None:
                fresh["category_id"] = self._own(where, "category_id", record, classes, "categories")
                if fresh["category_id"] is None:
                    continue
            changed.append(fresh)
        return changed

    def _image(self, where: str, own: Id, name: object, known: set[Id], finder: FileNames[Id]) -> Id:
        if not isinstance(name, str) or not finder.names:  # nothing but the id says which image it is
            if own not in known:
                raise ValueError(
                    f"{where}: id: is not in the data set, and there is no file_name to find it by"
                )
            return own
        same = finder.find(name)
        if own in same:
            return own
        if len(same) != 1:
            problem = "is not in the data set" if not same else f"may be any of {brief(same)}"
            raise ValueError(f"{where}: file_name: {brief(name)} {problem}")
        return same[0]

    def _by_id(self, kind: str, key: str) -> dict[Id, Mapping[str, object]]:
        listed = self.content.get(key)
        if not isinstance(listed, list):
            raise ValueError(f"{self.source}: {key}: expected a list, got {type(listed).__name__}")
        found: dict[Id, Mapping[str, object]] = {}
        for number, record in enumerate(listed):
            own = record.get("id") if isinstance(record, Mapping) else None
            if isinstance(own, bool) or not isinstance(own, int | str):
                raise ValueError(
                    f"{self.source}: {kind} number {number}: id: expected a whole number, got {brief(own)}"
                )
            if own in found:
                raise ValueError(f"{self.source}: {kind} {brief(own)}: id: appears twice")
            found[own] = record
        return found

    def _own(
        self, where: str, field: str, record: Mapping[str, object], known: Mapping[Id, T], key: str
    ) -> T:
        value = record.get(field)
        if not isinstance(value, int | str) or value not in known:
            raise ValueError(f"{where}: {field}: {brief(value)} is not among its {key}")
        return known[value]


def _by_image(data: Dataset, values: Sequence[T]) -> dict[Id, T]:
    """What the data set says of each image, by its id; empty where it says nothing."""
    return dict(zip(data.image_ids, values, strict=True)) if values else {}


class ExternalDetections(InstanceStore):
    """The detections of a file, checked image by image; a store that nothing is added to.

    Raises:
        ValueError: as `read_detections`, and for images that the data set does not have.
    """

    def __init__(self, path: str | Path, data: Dataset) -> None:
        self.source = str(path)
        self.category_ids = list(data.category_ids)
        self._of: dict[Id, list[tuple[int, object]]] = {}
        known = set(full_dataset(data).image_ids)
        for number, record in enumerate(read_detections(path, data)):
            own = record.get("image_id") if isinstance(record, Mapping) else None
            if not isinstance(own, int | str) or own not in known:
                raise ValueError(f"{path}: record {number}: image_id: {brief(own)} is not in the data set")
            self._of.setdefault(own, []).append((number, record))

    def load(self, sample: Sample) -> Records:
        """The image's detections, checked; none if the file has none."""
        height, width = sample.image.shape[-2:]
        truth = KnownIds("the data set", {sample.image_id: (int(height), int(width))}, self.category_ids)
        found = self._of.pop(sample.image_id, [])
        return check_records(
            [record for _, record in found],
            truth,
            source=self.source,
            boxes=False,
            numbers=[number for number, _ in found],
        )

    def save(self, sample: Sample, prediction: Records) -> None:
        """Never called: every image has its detections."""
        raise AssertionError("predictions from a file are not added to")
