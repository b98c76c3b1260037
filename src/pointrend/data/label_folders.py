"""Images with label maps: two folders matched by name, or a list of pairs; and where they are in a folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pointrend.data.class_table import ClassTable, find_classes, read_lines, to_contiguous
from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import exif_turns, image_size, read_image
from pointrend.data.label_io import read_labels
from pointrend.data.remote import ObjectFile, below, opened
from pointrend.data.splits import SPLIT_NAMES, child, first_child, held_out
from pointrend.formats.file_names import FileFinder, has_files, visible_files
from pointrend.structures import RGB, Dataset, Sample, SemanticTarget, Task

Pair = tuple[Path, Path]
MASK = "_mask"
IMAGES = ("images", "imgs", "img", "image", "img_dir")
LABELS = ("stuffthingmaps", "labels", "masks", "annotations", "ann_dir", "label", "mask")
BESIDE = ("_masks", "_labels", "_mask", "_label", "_annotations", "annot")
"""Behind the name of a split's folder, as in train/ and train_masks/."""

Folders = tuple[Path, Path]


class SemanticFolder(Dataset):
    """Images and label maps as `Sample`s with a `SemanticTarget`: labels 0..K-1, 255 ignored.

    Build it by `from_list`, or from pairs of paths (image, label map), see `match_folders`. Reading raises
    ValueError, naming the files, if an image is unreadable, if its label map has another size, or if a label
    is neither a class nor the ignore label; ConnectionError if an address cannot be fetched.

    Args:
        address: that the paths are below, in an object store or behind a web server; they are files if not given.
    """

    task: Task = "semantic"
    class_names: tuple[str, ...] = ()
    palette: tuple[RGB, ...] = ()

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: ClassTable,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
        address: str | None = None,
    ) -> None:
        if not pairs:
            raise ValueError("expected at least one pair of image and label map, got none")
        self.pairs = list(pairs)
        self.classes, self.class_names, self.palette = classes, classes.names, classes.palette
        self.transforms, self.address = transforms, address

    @classmethod
    def from_list(
        cls,
        file: str | Path,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> SemanticFolder:
        """A text file with "image labels" in each line, relative to its folder; see `find_classes`."""
        pairs = read_pairs(Path(file))
        return cls(pairs, find_classes(Path(file).parent, pairs), transforms=transforms)

    @property
    def image_ids(self) -> list[str]:
        """Names of the image files, without suffix."""
        return [image.stem for image, _ in self.pairs]

    @property
    def file_names(self) -> list[str]:
        """Paths of the image files."""
        return [str(self._source(image)) for image, _ in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = (opened(self._source(path)) for path in self.pairs[index])
        image = read_image(image_path)
        labels = to_contiguous(read_labels(label_path, self.classes.colors), self.classes, label_path)
        if image.shape[-2:] != labels.shape:
            turned = tuple(labels.shape) == image_size(image_path) and exif_turns(image_path)
            why = (
                "; its EXIF orientation turns the image, and the labels were drawn without" if turned else ""
            )
            raise ValueError(
                f"{label_path}: expected the size of {image_path}, {image.shape[-2]}x{image.shape[-1]} "
                f"(height x width, after EXIF rotation), got {labels.shape[0]}x{labels.shape[1]}{why}"
            )
        name = self.pairs[index][0].stem
        sample = Sample(image, SemanticTarget(labels), image_id=name, path=str(image_path))
        return sample if self.transforms is None else self.transforms(sample)

    def _source(self, path: Path) -> Path | str:
        return path if self.address is None else below(self.address, path.as_posix())


def match_folders(images: Path, labels: Path, *, allow_missing: bool = False) -> list[Pair]:
    """Pairs with equal names but for the suffix, in the order of their names, subfolders included. Label maps may all
    have the same addition to their names, such as "_mask".

    With `allow_missing`, an image without a label map, and a map without an image, is paired with a file that is not
    there.

    Raises ValueError if a folder is missing, if nothing matches, or if an image has two label maps or, without
    `allow_missing`, none.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
    imgs = _by_stem(images)
    return _matched(imgs, _without_addition(_by_stem(labels), imgs), images, labels, allow_missing)


def match_masks(folder: Path, *, allow_missing: bool = False) -> list[Pair]:
    """Pairs of NAME.jpg and NAME_mask.png in one folder, as Roboflow exports them; else as `match_folders`. None where
    there is no mask.
    """
    files = _by_stem(folder) if folder.is_dir() else {}
    maps = {stem.removesuffix(MASK): path for stem, path in files.items() if stem.endswith(MASK)}
    imgs = {stem: path for stem, path in files.items() if not stem.endswith(MASK)}
    return _matched(imgs, maps, folder, folder, allow_missing) if imgs and maps else []


def _without_addition(maps: dict[str, Path], imgs: dict[str, Path]) -> dict[str, Path]:
    """The label maps by the names of their images."""
    if not maps or imgs.keys() & maps.keys():
        return maps
    one = next(iter(maps))
    for addition in {one.removeprefix(stem) for stem in imgs if one.startswith(stem)}:
        named = {stem.removesuffix(addition): path for stem, path in maps.items() if stem.endswith(addition)}
        if len(named) == len(maps) and named.keys() & imgs.keys():
            return named
    return maps


def _matched(
    imgs: dict[str, Path], maps: dict[str, Path], images: Path, labels: Path, allow_missing: bool
) -> list[Pair]:
    if not imgs:
        raise ValueError(f"{images}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), found none")
    if allow_missing:
        return [
            (imgs.get(stem, images / f"{stem}.jpg"), maps.get(stem, labels / f"{stem}.png"))
            for stem in sorted(imgs.keys() | maps.keys())
        ]
    missing = [str(imgs[stem]) for stem in imgs if stem not in maps]
    if missing:
        raise ValueError(
            f"{labels}: expected a label map of the same name for each image of {images}; {len(missing)} "
            f"of {len(imgs)} have none, such as {', '.join(missing[:3])}"
        )
    return [(imgs[stem], maps[stem]) for stem in sorted(imgs)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in visible_files(folder, *IMAGE_SUFFIXES):
        # macOS writes accents apart from their letters, others in one piece.
        stem = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if stem in found:
            raise ValueError(f"{path}: expected one file of this name, but there is {found[stem].name} too")
        found[stem] = path
    return found


def read_pairs(file: Path | ObjectFile) -> list[Pair]:
    """Pairs of a text file, one per line, separated by white space (or by one tab, if names contain spaces): files
    of its folder, or, behind an address, names relative to it.

    Raises ValueError, naming the line, if it does not hold two names.
    """
    pairs: list[Pair] = []
    find = FileFinder(file.parent) if isinstance(file, Path) else Path
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        names = line.strip().split("\t") if "\t" in line else line.split()
        if len(names) != 2:
            raise ValueError(
                f"{file}, line {number}: expected an image and a label map, got {len(names)} names; put a "
                "tab between names that contain spaces"
            )
        pairs.append((find(names[0].strip()), find(names[1].strip())))
    if not pairs:
        raise ValueError(f"{file}: expected at least one line with an image and a label map, got none")
    return pairs


def find_semantic_pairs(root: Path, *, allow_missing: bool = False) -> dict[str, list[Pair]]:
    """Images with label maps of both splits, empty lists where there are none."""
    lists = {split: first_child(root, SPLIT_NAMES[split], ".txt") for split in SPLIT_NAMES}
    if any(lists.values()):
        return {split: read_pairs(file) if file else [] for split, file in lists.items()}
    for find in (_kind_then_split, _split_then_kind, _beside_split):
        parts = {split: find(root, split) for split in SPLIT_NAMES}
        if any(parts.values()):
            return {
                split: match_folders(*both, allow_missing=allow_missing) if both else []
                for split, both in parts.items()
            }
    if (both := _of_kinds(root)) is not None:
        pairs = match_folders(*both, allow_missing=allow_missing)
        return {split: held_out(pairs, split) for split in SPLIT_NAMES}
    return _masks_beside_images(root, allow_missing)


def _kind_then_split(root: Path, split: str) -> Folders | None:
    """images/train and labels/train; of COCO-Stuff train2017 and stuffthingmaps/train2017."""
    both = _of_kinds(root)
    if both is None:
        return None
    images, labels = both
    # COCO-Stuff's images are COCO's, and often only one split of the maps was fetched.
    part = first_child(labels if images == root else images, SPLIT_NAMES[split])
    if part is None:
        return None
    # A folder that is missing is named by what reads it.
    return child(images, part.name) or images / part.name, child(labels, part.name) or labels / part.name


def _split_then_kind(root: Path, split: str) -> Folders | None:
    part = first_child(root, SPLIT_NAMES[split])
    return None if part is None else _of_kinds(part)


def _beside_split(root: Path, split: str) -> Folders | None:
    part = first_child(root, SPLIT_NAMES[split])
    labels = None if part is None else first_child(root, [part.name + more for more in BESIDE])
    return None if part is None or labels is None else (part, labels)


def _of_kinds(root: Path) -> Folders | None:
    folders = (child(root, name) for name in LABELS)
    labels = next((path for path in folders if path is not None and _has_images(path)), None)
    images = first_child(root, IMAGES)
    if images is None and labels is not None and labels.name == "stuffthingmaps":
        images = root
    return None if images is None or labels is None else (images, labels)


def _masks_beside_images(root: Path, allow_missing: bool) -> dict[str, list[Pair]]:
    """Roboflow's semantic masks: in a folder for each split, or in one."""
    parts: Mapping[str, Path | None] = {split: first_child(root, SPLIT_NAMES[split]) for split in SPLIT_NAMES}
    if any(parts.values()):
        return {
            split: match_masks(folder, allow_missing=allow_missing) if folder else []
            for split, folder in parts.items()
        }
    pairs = match_masks(root, allow_missing=allow_missing)
    return {split: held_out(pairs, split) for split in SPLIT_NAMES}


def _has_images(folder: Path) -> bool:
    return has_files(folder, *IMAGE_SUFFIXES)
