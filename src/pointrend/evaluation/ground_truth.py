"""The truth about a data set's images, as COCO-format records; and parts of data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from pointrend.masks.rle import encode_windows
from pointrend.structures import RGB, Dataset, InstanceTarget, Sample, Samples, SemanticTarget, Task

__all__ = [
    "SampleList",
    "Subset",
    "annotation_records",
    "as_dataset",
    "assemble",
    "full_dataset",
    "ground_truth_of",
    "image_record",
]


class SampleList(Dataset):
    """Samples without a data set's names: a list, or any class with a length and samples by index."""

    class_names: tuple[str, ...] = ()

    def __init__(self, samples: Samples, class_names: Sequence[str] = ()) -> None:
        self.samples, self.class_names = samples, tuple(class_names)

    @property
    def task(self) -> Task:
        """What the first target is."""
        return "semantic" if isinstance(self.samples[0].target, SemanticTarget) else "instance"

    @property
    def image_ids(self) -> list[int | str]:
        """Of the samples, each of which is read for it."""
        return [self.samples[index].image_id for index in range(len(self.samples))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def as_dataset(samples: Samples, class_names: Sequence[str] = ()) -> Dataset:
    """The data set as it is, or plain samples as one."""
    return samples if isinstance(samples, Dataset) else SampleList(samples, class_names)


class Subset(Dataset):
    """Some images of a data set, in the given order.

    Attributes:
        data: the whole data set.
        indices: of the images in it.
    """

    class_names: tuple[str, ...] = ()
    category_ids: Sequence[int] = ()
    palette: tuple[RGB, ...] = ()

    def __init__(self, data: Samples, indices: Iterable[int]) -> None:
        self.indices = list(indices)
        if not self.indices:
            raise ValueError("expected at least one image to score, got none")
        if isinstance(data, Subset):
            self.indices = [data.indices[index] for index in self.indices]
        self.data: Dataset = data.data if isinstance(data, Subset) else as_dataset(data)
        self.class_names, self.palette = self.data.class_names, self.data.palette
        self.category_ids = self.data.category_ids

    @classmethod
    def first(cls, data: Samples, count: int | None) -> Subset:
        """The first so many images; all if None."""
        if count is not None and count < 1:
            raise ValueError(f"limit: expected at least one image, got {count}")
        return cls(data, range(len(data) if count is None else min(count, len(data))))

    @classmethod
    def with_ids(cls, data: Dataset, wanted: Iterable[int | str]) -> Subset:
        """The images with these ids, as far as the data set has them."""
        known = set(wanted)
        return cls(data, [index for index, one in enumerate(data.image_ids) if one in known])

    @property
    def task(self) -> Task:
        """The data set's."""
        return self.data.task

    @property
    def image_ids(self) -> list[int | str]:
        """Of these images, in their order."""
        known = self.data.image_ids
        return [known[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.data[self.indices[index]]

    def as_coco(self) -> dict[str, list[dict[str, object]]] | None:
        """Of the whole data set."""
        return self.data.as_coco()

    def instance_ids(self, index: int) -> Tensor:
        """(H, W) ids of an image's instance file."""
        return self.data.instance_ids(self.indices[index])


def full_dataset(data: Dataset) -> Dataset:
    """The data set that this is, or is a part of."""
    return data.data if isinstance(data, Subset) else data


def ground_truth_of(
    dataset: Samples, class_names: Sequence[str], category_ids: Sequence[int] | None = None
) -> dict[str, list[dict[str, object]]]:
    """A data set's targets as COCO-format ground truth; categories are the labels 0..K-1, or `category_ids`.

    Areas are counted in pixels of the masks, so sizes can differ a little from those of a file that lists
    polygon areas.
    """
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        images.append(image_record(sample))
        annotations.extend(annotation_records(sample, category_ids))
    return assemble(images, annotations, class_names, category_ids)


def image_record(sample: Sample) -> dict[str, object]:
    """An image's entry in `images`."""
    height, width = sample.image.shape[-2:]
    return {"id": sample.image_id, "height": int(height), "width": int(width)}


def annotation_records(sample: Sample, category_ids: Sequence[int] | None = None) -> list[dict[str, object]]:
    """An image's entries in `annotations`, without ids; categories are the labels 0..K-1, or `category_ids`."""
    target = sample.target
    if not isinstance(target, InstanceTarget):
        raise ValueError(f"expected objects for each image, got {type(target).__name__}")
    boxes: Tensor = target.boxes.double()
    sizes = boxes[:, 2:] - boxes[:, :2]
    records: list[dict[str, object]] = []
    for number, (mask, area) in enumerate(
        zip(encode_windows(target.masks), target.masks.areas().tolist(), strict=True)
    ):
        label = int(target.labels[number])
        records.append(
            {
                "image_id": sample.image_id,
                "category_id": label if category_ids is None else category_ids[label],
                "bbox": [*boxes[number, :2].tolist(), *sizes[number].tolist()],
                "area": area,
                "iscrowd": int(target.crowd[number]),
                "segmentation": mask,
            }
        )
    return records


def assemble(
    images: list[dict[str, object]],
    annotations: Sequence[Mapping[str, object]],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
) -> dict[str, list[dict[str, object]]]:
    """COCO-format content from its parts; categories are the labels 0..K-1, or `category_ids`."""
    ids = range(len(class_names)) if category_ids is None else category_ids
    return {
        "images": images,
        "annotations": [{**record, "id": number} for number, record in enumerate(annotations, 1)],
        "categories": [{"id": own, "name": name} for own, name in zip(ids, class_names, strict=True)],
    }
