"""Data sets in an object store or behind a web server: annotations are read once, each image when it is its turn.

Nothing is kept on the disk, and no folder is listed: names come from the annotation file or the list.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pointrend.data.class_table import read_classes
from pointrend.data.exports import ObjectSource
from pointrend.data.label_folders import SemanticFolder, read_pairs
from pointrend.data.remote import ObjectFile, is_missing, opened
from pointrend.formats.coco_json import inspect_coco
from pointrend.structures import Sample

LARGEST_ANNOTATIONS = 2**31
"""Bytes of an annotation file or a list; those of COCO's training part are 450 MB."""
COCO_FILES = (("instances_{}.json", "{}"), ("annotations/instances_{}2017.json", "{}2017"))
"""Annotation file and folder of images of a split."""


def find_objects_at(address: str, split: str) -> ObjectSource | None:
    """Objects in COCO's format, see `COCO_FILES`; None where there are none.

    Raises:
        ConnectionError, ImportError: see `opened`.
    """
    for name, folder in COCO_FILES:
        file = _file_at(f"{address}/{name.format(split)}")
        if file is not None:
            inspect = partial(inspect_coco, file, file_names=True)
            return ObjectSource("COCO file", f"{address}/{folder.format(split)}", inspect)
    return None


def label_maps_at(
    address: str, split: str, transforms: Callable[[Sample], Sample] | None = None
) -> SemanticFolder | None:
    """The label maps of a list, `train.txt` or `val.txt`, with `classes.json` beside it; None without a list.

    Raises:
        ValueError: there is no classes.json (not every label map is read to infer the classes), or it is wrong.
        ConnectionError, ImportError: see `opened`.
    """
    listed = _file_at(f"{address}/{split}.txt")
    if listed is None:
        return None
    table = _file_at(f"{address}/classes.json")
    if table is None:
        raise ValueError(
            f"{address}/classes.json: not there; label maps behind an address need a file that names their classes"
        )
    return SemanticFolder(read_pairs(listed), read_classes(table), transforms=transforms, address=address)


def _file_at(address: str) -> ObjectFile | None:
    try:
        file = opened(address, LARGEST_ANNOTATIONS)
    except ConnectionError as error:
        if is_missing(error):
            return None
        raise
    assert isinstance(file, ObjectFile)
    return file
