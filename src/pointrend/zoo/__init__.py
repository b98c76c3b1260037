"""The published PointRend models by name, and the ImageNet backbones that their trainings start from.

`load("pointrend_rcnn_R_50_FPN_3x_coco")` fetches, converts and builds one. Nothing but plain Python is
imported before something is built. The scores are those their authors published: nobody has measured them
with this package yet. What was shown is that deterministic weights give the originals' numbers
(tests/reference, docs/zoo.md).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pointrend.checkpoints.download import Progress, cache_folder, exclusive, fetch, file_hash
from pointrend.zoo.backbones import PRETRAINED, PretrainedBackbone, fill_backbone
from pointrend.zoo.bundled import BUNDLED, REFINER
from pointrend.zoo.entries import ZOO, Entry

if TYPE_CHECKING:
    from pointrend.models.base import Pretrained

__all__ = ["BUNDLED", "PRETRAINED", "ZOO", "Entry", "PretrainedBackbone", "fill_backbone", "load"]


def load(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Pretrained:
    """A model, ready to predict: an `InstanceSegmenter` or a `SemanticSegmenter` in evaluation mode.

    Args:
        name_or_path: a name of a bundled or a published model; a file: one of ours, a checkpoint of Detectron2,
            MMSegmentation or MMDetection, or what `pointrend export` wrote; a folder with model.safetensors, as
            `save_pretrained` writes it; or "user/name" on the Hugging Face Hub, where no such folder is here.
        weights: the published file of that name, where it has been downloaded already, whatever its hash; otherwise
            it is fetched once, compared with its publisher's hash, and kept, converted, in the cache folder
            (POINTREND_CACHE).
        device: where the model is wanted.
        progress: called with the bytes downloaded and those of the whole file.

    Raises:
        FileNotFoundError: a path without a file; a name that the Hub does not have.
        ConnectionError: the network is off or POINTREND_OFFLINE is set; names the URL and where to put the
            file.
        ValueError: an unknown name; a file that is damaged, of another model, or tries to run code.
    """
    if not isinstance(name_or_path, str | Path):
        raise ValueError(f"expected a name of the zoo or a path, got {name_or_path!r}")
    if name_or_path in BUNDLED and weights is None:
        return _load_path(BUNDLED[str(name_or_path)].path).to(device)
    entry = ZOO.get(str(name_or_path))
    if entry is None:
        if weights is not None:
            raise ValueError(
                f"weights: goes with a name of the zoo, {name_or_path} is none; {_similar(name_or_path)}"
            )
        return _load_path(_find_file(name_or_path)).to(device)
    if weights is not None:
        return _convert(entry, Path(weights)).to(device)
    return _load_published(entry, progress).to(device)


def _load_published(entry: Entry, progress: Progress | None) -> Pretrained:
    from pointrend.checkpoints import native

    if not entry.url:
        raise ValueError(
            f"{entry.name}: no weights were published; train it, and load your file, or pass it as weights"
        )
    converted = cache_folder() / f"{entry.name}.safetensors"
    if not converted.is_file():
        source = fetch(
            entry.url, cache_folder() / entry.file_name, checksum=entry.checksum, progress=progress
        )
        with exclusive(converted):
            if not converted.is_file():
                model = _convert(entry, source)
                model.origin["sha256"] = file_hash(source)
                native.save(model, converted)
                return model
    try:
        return native.load(converted)
    except ValueError as error:
        raise ValueError(f"{error}; remove {converted}, and it is converted again") from error


def _convert(entry: Entry, path: Path) -> Pretrained:
    """The published file as our model; ValueError if its tensors are not exactly those of the entry's network."""
    try:
        model = _reader(entry.project)(path, config=entry.config())
    except ValueError as error:
        reason = "\n".join(str(error).splitlines()[:6])  # a list of all tensors that differ helps nobody here
        raise ValueError(
            f"not the file of {entry.name} ({entry.task}, {entry.backbone}, {entry.data}): {reason}"
        ) from error
    model.origin = {"name": entry.name, "url": entry.url, "licence": entry.licence}
    return model


def _find_file(name: str | Path) -> Path:
    """The file that `name` stands for, here or on the Hub."""
    from pointrend.checkpoints.hub import FILE_NAME, fetch_from_hub, is_hub_name

    path = Path(os.path.expanduser(name))
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise FileNotFoundError(
                f"{path}: expected {FILE_NAME} in this folder; name a file, or another folder"
            )
        return path / FILE_NAME
    if path.exists():
        return path
    if isinstance(name, str) and is_hub_name(name):
        return fetch_from_hub(name)
    raise FileNotFoundError(f"{path}: no such file, and no name of the zoo: {_similar(path)}")


def _load_path(path: Path) -> Pretrained:
    from pointrend.checkpoints import native

    if path.suffix == ".safetensors":
        return native.load(path)
    if path.suffix in (".onnx", ".xml"):
        from pointrend.zoo.exported import ExportedSegmenter

        return cast("Pretrained", ExportedSegmenter(path))  # all that prediction asks of one
    if (entry := _published_as(path)) is not None:
        return _convert(entry, path)
    model = _reader(_project_of(path))(path)
    model.origin = {"converted_from": path.name}
    return model


def _published_as(path: Path) -> Entry | None:
    """The entry whose published file this is, by its name and its hash."""
    for entry in ZOO.values():
        algorithm, _, digits = entry.checksum.partition(":")
        if digits and path.name == entry.file_name and file_hash(path, algorithm).startswith(digits):
            return entry
    return None


def _project_of(path: Path) -> str:
    """Whose checkpoint it is, told by its tensors' names."""
    from pointrend.checkpoints.external import read_foreign

    names = read_foreign(path).tensors
    prefixes = {"decode_head.": "MMSegmentation", "roi_head.": "MMDetection"}
    found = (
        project for prefix, project in prefixes.items() if any(name.startswith(prefix) for name in names)
    )
    return next(found, "Detectron2")


def _reader(project: str) -> Callable[..., Pretrained]:
    from pointrend.checkpoints.detectron2 import from_detectron2
    from pointrend.checkpoints.openmmlab import from_mmdetection, from_mmsegmentation

    if project == "MMSegmentation":
        return from_mmsegmentation
    return from_mmdetection if project == "MMDetection" else from_detectron2


def _similar(name: str | Path) -> str:
    if str(name) == REFINER.name:
        return "it sharpens masks: pointrend.refine_mask"
    names = [*BUNDLED, *ZOO]
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(names)}"
