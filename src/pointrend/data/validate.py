"""Validate a data set: what is missing, malformed, empty, out of range, implausible, or there twice."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pointrend.data.class_table import MOST_CLASSES
from pointrend.data.coco import CocoInstances
from pointrend.data.image_io import exif_turns
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.label_io import label_colors, palette_to_name, read_labels
from pointrend.formats.records import Annotation, Fault, ImageRecord
from pointrend.masks.polygons import Polygons
from pointrend.structures import (
    IGNORE_LABEL,
    RGB,
    Dataset,
    InstanceTarget,
    LabelledPoints,
    Sample,
    SemanticTarget,
    are_numbered,
)

# A box counts as fitting its mask if no side is further off than this share of the box's longer side, or two pixels.
FIT = 0.1
MOST_UNNAMED = 60
"""Classes of label maps that no file names."""

Progress = Callable[[int, int], None]


@dataclass
class Findings:
    """What was found in a data set."""

    class_names: tuple[str, ...]
    task: str
    images: int = 0
    problems: list[Fault] = field(default_factory=list)
    images_of: list[int] = field(default_factory=list)
    """Images in which each class occurs."""
    amount_of: list[int] = field(default_factory=list)
    """Objects (crowds left out) or pixels of each class."""
    ignored: int = 0
    """Pixels without a class."""
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    """Smallest and largest (height, width), each by its own."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that occur nowhere."""
        return tuple(name for name, count in zip(self.class_names, self.images_of, strict=True) if count == 0)

    def add(self, kind: str, place: str, text: str) -> None:
        """Note a problem."""
        self.problems.append(Fault(kind, place, text))

    def by_kind(self) -> dict[str, list[Fault]]:
        """Problems, each kind together."""
        found: dict[str, list[Fault]] = defaultdict(list)
        for problem in self.problems:
            found[problem.kind].append(problem)
        return dict(found)


def check_dataset(
    data: Dataset, *, indices: Iterable[int] | None = None, progress: Progress | None = None
) -> Findings:
    """Read every image with its labels, and say what is wrong.

    Found are: faults of the annotation file; files that are missing or unreadable, label maps of another size or with
    numbers that are no class (all "unreadable"); images without a labelled pixel or an object ("empty"); objects
    without a pixel ("object"); boxes that do not fit their masks ("box"); images whose files are equal to the byte
    ("duplicate"); and what is implausible: boxes without a side, fractions for pixels, objects outside of their image,
    labelled points outside of their box, a category name that is there twice, one class alone, more ignored pixels than
    others, classes left out between others, more than 60 classes that have no names, EXIF orientations beside label
    maps.

    Args:
        data: without random changes of the images.
        indices: only these images.
        progress: called as progress(done, total).
    """
    chosen = list(range(len(data)) if indices is None else indices)
    classes = len(data.class_names)
    findings = Findings(data.class_names, data.task, images_of=[0] * classes, amount_of=[0] * classes)
    if isinstance(data, CocoInstances):
        findings.problems += annotation_problems(data)
    seen: dict[bytes, str] = {}
    for done, index in enumerate(chosen, start=1):
        try:
            sample = data[index]
        except (ValueError, OSError) as error:
            findings.add("unreadable", f"image {index}", str(error))
            continue
        finally:
            if progress is not None:
                progress(done, len(chosen))
        name = str(sample.path or sample.image_id)
        findings.images += 1
        _note_size(findings, sample)
        _note_duplicate(findings, seen, sample, name)
        if isinstance(sample.target, InstanceTarget):
            _look_at_objects(findings, sample.target, name, _annotated(data, sample))
        elif isinstance(sample.target, SemanticTarget):
            _look_at_labels(findings, sample.target, name)
            if sample.path is not None and exif_turns(sample.path):
                text = "its EXIF orientation turns the image; labels must be drawn on the image as a viewer shows it"
                findings.add("EXIF orientation", name, text)
    if findings.task == "semantic" and findings.images:
        findings.problems += _implausible_labels(findings)
    if isinstance(data, SemanticFolder) and data.classes.colors is None:
        findings.problems += _in_colour(data, chosen) or _unknown_numbers(data, chosen)
    return findings


def annotation_problems(data: CocoInstances) -> list[Fault]:
    """Faults of the annotation file, and what is implausible in it; no image is read."""
    problems = list(data.inspection.faults)
    if not any(data.file.objects.values()):
        problems.append(Fault("no objects", "annotations", f"none in {len(data.file.images)} images"))
    elif all(item.crowd for objects in data.file.objects.values() for item in objects):
        text = (
            "every object has iscrowd 1, which some tools write for any mask in run lengths; crowds are not learnt"
            " from. --fix OUT makes them single objects"
        )
        problems.append(Fault("crowds alone", "annotations", text))
    files = Counter(image.file_name for image in data.file.images.values())
    for name in sorted(name for name, count in files.items() if count > 1):
        problems.append(Fault("image listed twice", name, f"{files[name]} entries of images name this file"))
    names = [category.name for category in data.file.categories.values()]
    same, alike = Counter(names), Counter(name.strip().casefold() for name in names)
    for name in sorted(name for name in same if alike[name.strip().casefold()] > 1):
        text = f"{name!r} is there twice" if same[name] > 1 else f"{name!r} is there in another spelling"
        problems.append(Fault("duplicate category name", "categories", text))
    for image_id, objects in data.file.objects.items():
        image = data.file.images[image_id]
        for item in objects:
            kind = _implausible_object(item, image)
            if kind is not None:
                x, y, width, height = item.bbox.tolist()
                text = (
                    f"box ({x:g}, {y:g}, {width:g}, {height:g}) in an image of {image.width}x{image.height}"
                )
                problems.append(Fault(kind, f"{image.file_name}, annotation {item.id}", text))
    return problems


def _implausible_object(item: Annotation, image: ImageRecord) -> str | None:
    x, y, width, height = item.bbox.tolist()
    if width == 0 or height == 0:
        return "box without a side"
    if is_fraction(item) and min(image.size) > 4:
        return "fractions for pixels"
    if item.shape is not None:
        x1, y1, x2, y2 = item.shape.extent.tolist()
        if min(x1, x) >= image.width or min(y1, y) >= image.height or max(x2, y2) <= 0:
            return "object outside"
    return None


def is_fraction(item: Annotation) -> bool:
    """Whether box and outline lie within one pixel: shares of the image's size where pixels are meant."""
    outline = not isinstance(item.shape, Polygons) or float(item.shape.extent.max()) <= 1
    return outline and isinstance(item.shape, Polygons) and float(item.bbox.max()) <= 1


def _implausible_labels(findings: Findings) -> list[Fault]:
    found = [number for number, count in enumerate(findings.amount_of) if count]
    pixels = sum(findings.amount_of) + findings.ignored
    unnamed = are_numbered(findings.class_names)
    problems = []
    if len(found) == 1:
        alone = findings.class_names[found[0]]
        why = " Masks of 0 and 255? 255 means ignored: see ids in classes.json" if findings.ignored else ""
        problems.append(Fault("one class alone", "all images", f"every labelled pixel is {alone!r}.{why}"))
    if 2 * findings.ignored > pixels:
        text = f"{100 * findings.ignored / pixels:.0f} % of the pixels have no class"
        problems.append(Fault("mostly ignored", "all images", text))
    gaps = [name for number, name in enumerate(findings.class_names) if number not in found]
    if unnamed and gaps and found:
        text = (
            f"{', '.join(gaps[:10])} occur nowhere, but a larger label does; are these ids? See classes.json"
        )
        problems.append(Fault("labels left out", "all images", text))
    if unnamed and len(found) > MOST_UNNAMED:
        text = f"{len(found)} different labels without names: grey levels of a lossy or resized file?"
        problems.append(Fault("many labels", "all images", text))
    return problems


def _in_colour(data: SemanticFolder, indices: Iterable[int]) -> list[Fault]:
    """The palette of all label maps in colour together, to be named once."""
    colors: set[RGB] = set()
    for index in indices:
        with suppress(ValueError):  # unreadable: listed already
            colors |= label_colors(data.pairs[index][1])
    if not colors:
        return []
    text = (
        f"{len(colors)} colours; name their classes in classes.json, in this order: {palette_to_name(colors)}"
    )
    return [Fault("label maps in colour", "all images", f"{text}; --fix OUT writes numbers for them")]


def _unknown_numbers(data: SemanticFolder, indices: Iterable[int]) -> list[Fault]:
    """The numbers of all label maps together, where no file names them and they do not fit 0..254."""
    if not are_numbered(data.class_names) or data.classes.ids is not None:
        return []
    numbers: set[int] = set()
    for index in indices:
        with suppress(ValueError):
            numbers |= set(torch.unique(read_labels(data.pairs[index][1])).tolist())
    numbers -= {IGNORE_LABEL}
    if not numbers or max(numbers) < MOST_CLASSES:
        return []
    listed = f'{{"classes": [{len(numbers)} names], "ids": {sorted(numbers)}}}'
    way = f"; name them in classes.json: {listed}" if len(numbers) < MOST_CLASSES else ": no label maps?"
    return [Fault("labels beyond 254", "all images", f"{len(numbers)} different numbers{way}")]


def _note_size(findings: Findings, sample: Sample) -> None:
    height, width = sample.image.shape[-2:]
    (low, narrow), (high, wide) = findings.sizes or ((height, width), (height, width))
    findings.sizes = (min(low, height), min(narrow, width)), (max(high, height), max(wide, width))


def _note_duplicate(findings: Findings, seen: dict[bytes, str], sample: Sample, name: str) -> None:
    if sample.path is None or not Path(sample.path).is_file():
        return  # generated images have no file
    digest = hashlib.sha256(Path(sample.path).read_bytes()).digest()
    first = seen.setdefault(digest, name)
    if first != name:
        findings.add("duplicate", name, f"the same file as {first}")


def _annotated(data: Dataset, sample: Sample) -> int | None:
    """How many objects the image's annotation has, where that is known before they are rasterized."""
    return len(data.placed(sample.image_id).shapes) if isinstance(data, CocoInstances) else None


def _look_at_labels(findings: Findings, target: SemanticTarget, name: str) -> None:
    counts = torch.bincount(target.labels.flatten().long(), minlength=256)
    findings.ignored += int(counts[IGNORE_LABEL])
    if int(counts[:IGNORE_LABEL].sum()) == 0:
        findings.add("empty", name, "every pixel of the label map is ignored")
    _count(findings, counts[: len(findings.class_names)])


def _look_at_objects(findings: Findings, target: InstanceTarget, name: str, annotated: int | None) -> None:
    counted = ~target.crowd
    if not bool(counted.any()):
        findings.add("empty", name, "no object, crowds aside")
    if annotated is not None and annotated > len(target):
        lost = annotated - len(target)
        text = f"{lost} of {annotated} objects have no pixel or no box inside the image"
        findings.add("object", name, text)
    _count(findings, torch.bincount(target.labels[counted], minlength=len(findings.class_names)))
    if target.points is not None:
        findings.problems += _misplaced_points(target.boxes, target.points, counted, name)
    for number, (box, window) in enumerate(zip(target.boxes.tolist(), target.masks.windows, strict=True)):
        if bool(target.crowd[number]) or (target.points is not None and window.numel() == 0):
            continue
        rows, columns = torch.where(window != 0)
        if len(rows) == 0:
            findings.add("object", name, f"object {number} has an empty mask")
            continue
        x, y = target.masks.offsets[number].tolist()
        x, y, right, bottom = x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1
        tight = [int(side) for side in (x, y, right, bottom)]
        allowed = max(2.0, FIT * max(box[2] - box[0], box[3] - box[1]))
        if max(abs(a - b) for a, b in zip(box, tight, strict=True)) > allowed:
            shown = ", ".join(f"{value:.0f}" for value in box)
            label = findings.class_names[int(target.labels[number])]
            text = f"object {number} ({label}): the box ({shown}) does not fit the mask, which spans {tuple(tight)}"
            findings.add("box", name, text)


def _misplaced_points(boxes: Tensor, points: LabelledPoints, counted: Tensor, name: str) -> Iterator[Fault]:
    """Points are drawn in an object's box; its corners may be fractions."""
    beyond = (
        ((points.coords < boxes[:, None, :2] - 1) | (points.coords > boxes[:, None, 2:] + 1)).any(2).sum(1)
    )
    for number in torch.nonzero(counted & (beyond > 0)).flatten().tolist():
        text = f"{int(beyond[number])} labelled points of object {number} lie outside of its box"
        yield Fault("points outside their box", name, text)


def _count(findings: Findings, counts: torch.Tensor) -> None:
    for label, count in enumerate(counts.tolist()):
        findings.amount_of[label] += count
        findings.images_of[label] += count > 0
