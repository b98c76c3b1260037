"""Instance segmentation data in COCO's format, as samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from pointrend.data.annotations import Floats, PlacedObjects, PlacedPoints
from pointrend.data.image_io import read_image
from pointrend.data.remote import ObjectFile, below, is_url, opened
from pointrend.data.transforms import finished
from pointrend.formats.coco_json import read_coco
from pointrend.formats.file_names import FileFinder
from pointrend.formats.image_annotations import NO_OBJECTS
from pointrend.formats.records import Annotation, CocoFile, ImageRecord, Inspection
from pointrend.metadata.colors import default_palette
from pointrend.structures import RGB, Dataset, Sample, Task


class CocoInstances(Dataset):
    """Images of a folder with the objects of a COCO annotation file, as samples with an `InstanceTarget`.

    Labels are 0..K-1 in the order of the category ids (`category_ids` leads back), or in the order of
    `categories`: names to keep, of categories or of supercategories (then all of its categories become one
    class). Objects below `min_area` (square pixels, as annotated; crowds stay) are left out, and without
    `keep_empty` so are images in which no object, crowds aside, is left.

    `annotations` is the file, or its content; `inspection` what else was found in it.

    Transforms see a sample whose target is a `PlacedObjects`; masks are rasterized after them.

    `images` may be an address in an object store or of a web server: each image is fetched when it is read.

    Raises ValueError if the file is malformed (see `read_coco`) or a name is unknown, and on reading a sample
    if the image is unreadable or has another size than the file says; ConnectionError if it cannot be fetched.
    """

    task: Task = "instance"
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    palette: tuple[RGB, ...] = ()
    image_ids: Sequence[int | str] = ()
    file_names: Sequence[str] = ()
    image_sizes: Sequence[tuple[int, int]] = ()

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path | CocoFile,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
        categories: Sequence[str] | None = None,
        min_area: float = 0.0,
        keep_empty: bool = True,
        inspection: Inspection | None = None,
    ) -> None:
        self.images = images if isinstance(images, str) and is_url(images) else Path(images)
        self.find_image: Callable[[str], Path | str]
        if isinstance(self.images, str):
            self.find_image = partial(below, self.images)
        elif self.images.is_dir():
            self.find_image = FileFinder(self.images)
        else:
            raise ValueError(f"{images}: no such folder of images")
        self.file = (
            annotations if isinstance(annotations, CocoFile) else read_coco(annotations, file_names=True)
        )
        if not self.file.categories:
            raise ValueError(f"{self.file.source}, categories: expected at least one category, got none")
        self.transforms, self.inspection = transforms, inspection or Inspection(self.file, [], {})
        self.classes = choose_classes(self.file, categories)
        self.class_names = tuple(name for name, _ in self.classes)
        self.category_ids = tuple(min(ids) for _, ids in self.classes)  # of a merged class the smallest
        self.palette = default_palette(len(self.classes))
        self._label_of = {member: label for label, (_, ids) in enumerate(self.classes) for member in ids}
        self._objects = {
            number: [item for item in objects if self._counts(item, min_area)]
            for number, objects in self.file.objects.items()
        }
        self.image_ids = [
            number
            for number in self.file.images
            if keep_empty or any(not o.crowd for o in self._objects[number])
        ]
        self.file_names = [self.file.images[number].file_name for number in self.image_ids]
        self.image_sizes = [self.file.images[number].size for number in self.image_ids]

    def _counts(self, item: Annotation, min_area: float) -> bool:
        return item.category_id in self._label_of and (item.crowd or item.area >= min_area)

    @property
    def has_points(self) -> bool:
        """Whether objects have labelled points, from which masks are then learnt."""
        return any(item.points is not None for objects in self._objects.values() for item in objects)

    def require_masks(self) -> None:
        """Raise a ValueError where an object has labelled points in place of a mask: scores need masks."""
        if any(item.shape is None for objects in self._objects.values() for item in objects):
            raise ValueError(
                f"{self.file.source}: objects have labelled points in place of masks, and scores need masks; train "
                "with --no-evaluate, or score on data with masks"
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        image = self.file.images[self.image_ids[index]]
        path = opened(self.find_image(image.file_name))
        sample = Sample(read_annotated(path, image), self.placed(image.id), image.id, str(path))
        return finished(sample if self.transforms is None else self.transforms(sample))

    def placed(self, image_id: int | str) -> PlacedObjects:
        """The objects of an image, not rasterized yet."""
        image, objects = self.file.images[image_id], self._objects[image_id]
        size = (image.height, image.width)
        return PlacedObjects(
            shapes=[item.shape for item in objects],
            boxes=_corners(objects),
            labels=np.array([self._label_of[item.category_id] for item in objects], dtype=np.int64),
            crowd=np.array([item.crowd for item in objects], dtype=bool),
            source_size=size,
            image_size=size,
            points=PlacedPoints.of([item.points for item in objects]),
        )

    def as_coco(self) -> dict[str, list[dict[str, object]]]:
        """What is left of the file after the choice of categories and images, in its own format: the ground
        truth for an evaluation. Merged categories have the id of their class (`category_ids`).

        Raises:
            ValueError: an object has labelled points in place of a mask.
        """
        self.require_masks()
        ids = self.category_ids
        images = [self.file.images[number] for number in self.image_ids]
        return {
            "images": [
                {"id": p.id, "file_name": p.file_name, "height": p.height, "width": p.width} for p in images
            ],
            "categories": [{"id": ids[label], "name": name} for label, name in enumerate(self.class_names)],
            "annotations": [
                {**item.to_coco(), "category_id": ids[self._label_of[item.category_id]]}
                for image in images
                for item in self._objects[image.id]
            ],
        }


def _corners(objects: Sequence[Annotation]) -> Floats:
    """(G, 4) x1, y1, x2, y2 of the annotated boxes."""
    boxes = np.array([item.bbox for item in objects], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def choose_classes(file: CocoFile, names: Sequence[str] | None) -> list[tuple[str, list[int]]]:
    """(name, category ids) of each class.

    Raises ValueError for a name that is neither category nor supercategory, or a category chosen twice.
    """
    categories = list(file.categories.values())
    used = {item.category_id for objects in file.objects.values() for item in objects}
    # Roboflow lists its project as a category of which there are no objects: the supercategory of all others. labelme's
    # export lists the background.
    parents = {c.supercategory for c in categories if c.supercategory != c.name}
    own = [c for c in categories if c.id in used or c.name not in parents | NO_OBJECTS]
    if names is None:
        return [(category.name, [category.id]) for category in own]
    chosen = []
    for name in names:
        ids = [category.id for category in own if category.name == name] or [
            category.id for category in own if category.supercategory == name
        ]
        if not ids:
            known = sorted(
                {c.name for c in categories} | {c.supercategory for c in categories if c.supercategory}
            )
            raise ValueError(
                f"{file.source}: no category or supercategory {name!r}; there are {', '.join(known)}"
            )
        chosen.append((name, ids))
    every = [number for _, ids in chosen for number in ids]
    if not every or len(every) != len(set(every)):
        raise ValueError(f"categories: expected at least one name, and each category once, got {list(names)}")
    return chosen


def read_annotated(path: Path | ObjectFile, img: ImageRecord) -> Tensor:
    """The image, in the orientation that its annotations were made in: upright, or as stored if only that
    fits.

    Raises ValueError if neither has the annotated size.
    """
    size = (img.height, img.width)
    image = read_image(path)
    if tuple(image.shape[-2:]) == size:
        return image
    stored = read_image(path, upright=False)
    if tuple(stored.shape[-2:]) == size:
        return stored
    raise ValueError(
        f"{path}: the annotation file says {size[0]}x{size[1]} (height x width) for image {img.id}, the "
        f"file has {image.shape[-2]}x{image.shape[-1]}; annotate the file as it is, or restore the original"
    )
