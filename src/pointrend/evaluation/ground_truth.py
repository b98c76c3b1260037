"""The truth about a data set's images, as COCO-format records; and parts of data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from pointrend.masks.rle import encode_windows
from pointrend.structures import InstanceTarget, Sample

__all__ = [
    "Samples",
    "Subset",
    "annotation_records",
    "assemble",
    "file_names_of",
    "ground_truth_of",
    "image_record",
    "sizes_of",
]


class Samples(Protocol):
    """A data set: images in the size to score in, with their targets."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Subset:
    """Some images of a data set, in the given order; whatever else the data set knows is handed on."""

    def __init__(self, data: Any, indices: Iterable[int]) -> None:
        self.data, self.indices = data, list(indices)
        if not self.indices:
            raise ValueError("expected at least one image to score, got none")

    @classmethod
    def first(cls, data: Any, count: int | None) -> Subset:
        """The first so many images; all if None."""
        if count is not None and count < 1:
            raise ValueError(f"limit: expected at least one image, got {count}")
        return cls(data, range(len(data) if count is None else min(count, len(data))))

    @classmethod
    def with_ids(cls, data: Any, wanted: Iterable[int | str]) -> Subset:
        """The images with these ids, as far as the data set has them; it must know its `image_ids`."""
        known = set(wanted)
        return cls(data, [index for index, one in enumerate(data.image_ids) if one in known])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.data[self.indices[index]]

    def __getattr__(self, name: str) -> Any:
        if name in ("data", "indices"):  # not there yet, as while being unpickled
            raise AttributeError(name)
        return getattr(self.data, name)

    @property
    def full(self) -> Any:
        """The data set that this is a part of."""
        return getattr(self.data, "full", self.data)

    @property
    def image_ids(self) -> list[int | str]:
        """Of these images, in their order."""
        known = self.data.image_ids
        return [known[index] for index in self.indices]

    def instance_ids(self, index: int) -> Tensor:
        """Cityscapes' own numbers of an image's pixels, (H, W)."""
        ids: Tensor = self.data.instance_ids(self.indices[index])
        return ids


def file_names_of(data: Any) -> dict[int | str, str]:
    """The file name of each image of the whole data set by its id; empty where its images are no files."""
    if hasattr(data, "as_coco"):
        return {image["id"]: image["file_name"] for image in data.as_coco()["images"]}
    full = getattr(data, "full", data)
    if hasattr(full, "pairs"):
        return {one: str(image) for one, (image, _) in zip(full.image_ids, full.pairs, strict=True)}
    return {}


def sizes_of(data: Any) -> dict[int | str, tuple[int, int]]:
    """(height, width) of each image of the whole data set, where it knows them without reading the images."""
    if not hasattr(data, "as_coco"):
        return {}
    return {image["id"]: (image["height"], image["width"]) for image in data.as_coco()["images"]}


def ground_truth_of(
    dataset: Samples, class_names: Sequence[str], category_ids: Sequence[int] | None = None
) -> dict[str, Any]:
    """A data set's targets as COCO-format ground truth; categories are the labels 0..K-1, or `category_ids`.

    Areas are counted in pixels of the masks, so sizes can differ a little from those of a file that lists
    polygon areas.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        images.append(image_record(sample))
        annotations.extend(annotation_records(sample))
    return assemble(images, annotations, class_names, category_ids)


def image_record(sample: Sample) -> dict[str, Any]:
    """An image's entry in `images`."""
    height, width = sample.image.shape[-2:]
    return {"id": sample.image_id, "height": int(height), "width": int(width)}


def annotation_records(sample: Sample) -> list[dict[str, Any]]:
    """An image's entries in `annotations`, without ids."""
    target = sample.target
    if not isinstance(target, InstanceTarget):
        raise ValueError(f"expected objects for each image, got {type(target).__name__}")
    boxes: Tensor = target.boxes.double()
    sizes = boxes[:, 2:] - boxes[:, :2]
    records = []
    for number, (mask, area) in enumerate(
        zip(encode_windows(target.masks), target.masks.areas().tolist(), strict=True)
    ):
        records.append(
            {
                "image_id": sample.image_id,
                "category_id": int(target.labels[number]),
                "bbox": [*boxes[number, :2].tolist(), *sizes[number].tolist()],
                "area": area,
                "iscrowd": int(target.crowd[number]),
                "segmentation": mask,
            }
        )
    return records


def assemble(
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """COCO-format content from its parts, whose categories are labels; they become `category_ids`."""
    ids = list(category_ids) if category_ids is not None else list(range(len(class_names)))
    return {
        "images": images,
        "annotations": [
            {**record, "id": number, "category_id": ids[record["category_id"]]}
            for number, record in enumerate(annotations, 1)
        ],
        "categories": [{"id": own, "name": name} for own, name in zip(ids, class_names, strict=True)],
    }
