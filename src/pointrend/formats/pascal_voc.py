"""Pascal VOC's objects: JPEGImages/, SegmentationClass/ and SegmentationObject/, in which every object has a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pointrend.formats.coco_json import Fault, Inspection
from pointrend.formats.image_annotations import AnnotatedImage, mask_shape, together

VOID = 255
"""In both files: the seam between objects, which belongs to none."""

LabelReader = Callable[[Path], np.ndarray]


def inspect_voc(
    source: str,
    files: Sequence[tuple[str, Path, Path]],
    class_names: Sequence[str],
    read_classes: LabelReader,
    read_objects: LabelReader,
) -> Inspection:
    """Each object of SegmentationObject as a mask, its class that of most of its pixels in SegmentationClass.

    Args:
        source: of the whole, for messages.
        files: name of the image, its class map and its object map.
        class_names: by number, from the background on.
        read_classes, read_objects: a file as numbers (H, W), 0 background and 255 void.
    """
    images: list[AnnotatedImage] = []
    faults: list[Fault] = []
    for name, class_path, object_path in files:
        try:
            classes, objects = read_classes(class_path), read_objects(object_path)
            if classes.shape != objects.shape:
                raise ValueError(f"{object_path}: expected the size of {class_path}, got {objects.shape}")
        except ValueError as error:
            faults.append(Fault("unreadable annotation", object_path.name, str(error)))
            continue
        image = AnnotatedImage(name, (classes.shape[0], classes.shape[1]))
        images.append(image)
        for number in np.unique(objects[(objects != 0) & (objects != VOID)]).tolist():
            rows, columns = np.nonzero(objects == number)
            counts = np.bincount(classes[rows, columns], minlength=VOID + 1)[:VOID]
            counts[0] = 0
            label = int(counts.argmax())
            if not counts[label] or label >= len(class_names):
                faults.append(
                    Fault(
                        "object without a class", f"{object_path.name}, object {number}", "has no class pixel"
                    )
                )
                continue
            top, left = int(rows.min()), int(columns.min())
            mask = objects[top : rows.max() + 1, left : columns.max() + 1] == number
            shape = mask_shape(mask, (left, top), image.size)
            assert shape is not None
            image.objects.append((class_names[label], shape))
    return together(source, images, faults, list(class_names[1:]))
