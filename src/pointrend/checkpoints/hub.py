"""A model as a folder, `model.safetensors` beside a README.md that describes it, here or on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pointrend.checkpoints.download import offline
from pointrend.checkpoints.native import kind_of, save
from pointrend.io import atomic_write
from pointrend.zoo.backbones import PretrainedBackbone
from pointrend.zoo.entries import Entry

FILE_NAME = "model.safetensors"
_SUFFIXES = (".safetensors", ".pkl", ".pth", ".pt")


def is_hub_name(name: str) -> bool:
    """Whether it may be a repository of the Hub, "user/name", rather than a misspelt file."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)) and not name.endswith(_SUFFIXES)


def fetch_from_hub(name: str) -> Path:
    """The `model.safetensors` of a Hub repository, downloaded once and kept in huggingface_hub's own cache.

    Only this file is fetched: no pickle and no code. POINTREND_OFFLINE and HF_HUB_OFFLINE forbid the network.

    Raises FileNotFoundError for a repository that is not there, is private, or lacks the file;
    ConnectionError where the network is off, forbidden or failed. Both say what to do.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE_NAME, local_files_only=offline()))
    except errors.LocalEntryNotFoundError as error:  # offline in any way, and not in the cache
        raise ConnectionError(
            f"{name}: no such file or folder here, no name of the zoo, and the Hugging Face Hub could not be "
            f"asked. Try again with a network (and without POINTREND_OFFLINE and HF_HUB_OFFLINE), or put "
            f"https://huggingface.co/{name}/resolve/main/{FILE_NAME} into a folder and name that"
        ) from error
    except errors.RepositoryNotFoundError as error:  # gated ones too
        raise FileNotFoundError(
            f"{name}: no such file or folder here, no name of the zoo (`pointrend zoo` lists them), and no "
            "repository of the Hugging Face Hub, or a private one: check the spelling, or log in with "
            "`hf auth login`"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: this repository of the Hugging Face Hub has no {FILE_NAME}, so it is no model of this "
            "package"
        ) from error
    except (OSError, ValueError) as error:
        raise ConnectionError(f"{name}: could not be fetched from the Hugging Face Hub ({error})") from error


def save_folder(model: nn.Module, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write `model.safetensors` and, where there is none yet, a README.md about it. Arguments as `files.save`."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder to write to, this is a file")
    save(model, folder / FILE_NAME, extra=extra)
    readme = folder / "README.md"
    if not readme.exists():
        known = extra if extra is not None else getattr(model, "origin", {})
        _write(readme, model_card(model, folder.resolve().name, known))


def model_card(model: nn.Module, title: str, extra: Mapping[str, Any] | None = None) -> str:
    """Markdown with the Hub's header. extra: where the weights come from, plain values by name."""
    kind, config = kind_of(model), _config(model)
    names = config.class_names
    shown = ", ".join(names[:40]) + (f", .. {len(names)} in all" if len(names) > 40 else "")
    known = list(_lines(extra or {}))
    return "\n".join(
        [
            "---",
            "library_name: pointrend",
            "pipeline_tag: image-segmentation",
            f"tags: [pointrend, {kind}-segmentation]",
            "---",
            "",
            f"# {title}",
            "",
            f"{describe(config)}. {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters.",
            "",
            "```python",
            "import pointrend",
            "",
            f'model = pointrend.{type(model).__name__}.from_pretrained("user/{title}")  # or this folder',
            'result = pointrend.Predictor(model)(["image.jpg"])[0]',
            "```",
            "",
            f"Classes: {shown}.",
            "",
            "## Where the weights come from",
            "",
            *(known or ["Not recorded."]),
            "",
            "## Limits",
            "",
            "Made for images like those it was trained on. What is not written above about its training, its "
            "accuracy and the licence of its weights and data is not known from the file: add it here.",
            "",
        ]
    )


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A Markdown list of names and values, lists within it for dictionaries."""
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        yield f"{indent}- {name.replace('_', ' ')}:" + ("" if nested else f" {value}")
        if nested:
            yield from _lines(value, indent + "  ")


def describe(config: Any) -> str:
    """One sentence about a configuration, `InstanceConfig` or `SemanticConfig`, without a full stop."""
    backbone = config.backbone
    stem = " with a deep stem" if backbone.deep_stem else ""
    if hasattr(config, "masks"):
        masks = config.masks
        start, side = masks.start_side, masks.side
        grid = f"a {start}x{start} grid to {side}x{side}, {masks.points} points a step"
        heads = {
            "pointrend": f"masks rendered point by point from {grid}",
            "implicit": f"a point head predicted for each box, from {grid}",
            "coarse": f"{masks.coarse_side}x{masks.coarse_side} masks",
        }
        head = heads.get(config.head, f"masks by four convolutions ({config.head})")
        network = f"Mask R-CNN with FPN, {backbone.name}{stem}"
        return f"Instance segmentation: {network}, {head}, {config.num_classes} classes"
    network = "SemanticFPN" if config.head == "fpn" else "DeepLabV3"
    rend = config.point_rend
    points = "no point head" if rend is None else f"PointRend with {rend.count} points a step"
    if rend is not None and rend.steps is not None:
        points += f", {rend.steps} steps"
    return f"Semantic segmentation: {network}, {backbone.name}{stem}, {points}, {config.num_classes} classes"


def _config(model: nn.Module) -> Any:
    return model.config


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


DATA = {"COCO": "COCO", "Cityscapes": "CITYSCAPES", "ADE20K": "ADEChallengeData2016"}
"""What stands for the data set's folder in commands."""
FLIP = "--flip --scales 0.5 0.75 1 1.25 1.5 1.75"


def commands(entry: Entry) -> dict[str, str]:
    """By published score the command that would measure it on the official validation data; DATA has its folder.

    Empty where no weights were published.
    """
    start = f"pointrend eval {entry.name} --data {DATA[entry.data]} --metrics"
    city = entry.data == "Cityscapes" and entry.kind == "instance"
    options = {
        "mask AP": "cityscapes" if city else "mask",
        "mask AP*": "mask --lvis lvis_v0.5_val.json",
        "box AP": "box",
        "mIoU": "miou",
        "mIoU ms+flip": f"miou {FLIP}",
    }
    return {name: f"{start} {options[name]}" for name, _ in entry.scores}


def scores(entry: Entry) -> str:
    """ "mask AP 38.3, mask AP* 41.6"."""
    digits = 2 if entry.project == "MMSegmentation" else 1
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in entry.scores) or "none"


def size(entry: Entry) -> str:
    """ "229.95 MB" as published, or "about 110 MB"; megabytes of 2**20 bytes."""
    if entry.mebibytes is not None:
        return f"{entry.mebibytes} MB"
    return f"about {entry.parameters * 4 / 2**20:.0f} MB"


def card(entry: Entry) -> str:
    """The model card of a published model."""

    config = entry.config()
    return "\n".join(
        [
            f"# {entry.name}",
            "",
            f"{describe(config)}. Published by {entry.project}.",
            "",
            f"- Scores as published: {scores(entry)}"
            + (f" ({entry.score_source}). Not measured with this package yet." if entry.scores else "."),
            f"- Weights: {entry.url or 'none were published; `pointrend train` makes them'}",
            f"- File: {_file(entry)}",
            f"- Licence of the weights: {entry.licence}",
            f"- Parameters: {entry.parameters:,} (frozen norms are not counted)",
            f"- Images: {_images(config.preprocessing)}",
            f"- Training: {_training(entry)}",
            "",
            *_how_to_score(entry),
            "",
            f"It was trained on {entry.data}'s images and {config.num_classes} classes; how well it does on "
            "others is not known. That loading it gives what the original computes was shown with deterministic "
            "weights (docs/zoo.md), not with this file"
            + ("; for MMDetection's not even that." if entry.project == "MMDetection" else "."),
            "",
        ]
    )


def _how_to_score(entry: Entry) -> list[str]:
    if not entry.scores:
        return ["To train it:", "", f"    pointrend train {entry.name} --data {DATA[entry.data]}"]
    lines = ["To measure it on the official validation data:", ""]
    for name, command in commands(entry).items():
        lines += [f"    {command}    # {name}"]
    if any("lvis" in command for command in commands(entry).values()):
        lines += ["", "AP* is AP on LVIS's finer annotations of COCO's categories."]
    return lines


def backbone_card(entry: PretrainedBackbone) -> str:
    """What is to be known about ImageNet weights."""
    return "\n".join(
        [
            f"# {entry.name}",
            "",
            f"ImageNet classification weights for {entry.backbone}, without the classifier: what trainings start from.",
            "",
            f"- Weights: {entry.url}",
            f"- Licence of the weights: {entry.licence}",
            f"- Hash: {_check(entry.checksum)}",
            f"- Stride of a stage: in its first {'1x1' if entry.stride_in_1x1 else '3x3'} convolution",
            f"- Stem: {'three 3x3 convolutions' if entry.deep_stem else 'one 7x7 convolution'}",
            f"- Pixels: {entry.pixels}",
            "",
        ]
    )


def _file(entry: Entry) -> str:
    if not entry.url:
        return "none"
    return f"{entry.file_name}, {size(entry)}; {_check(entry.checksum)}"


def _check(checksum: str) -> str:
    algorithm, _, digits = checksum.partition(":")
    if not digits:
        return "not stated by its publisher; what was fetched is noted, and compared later"
    name = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
    return f"{name} begins with {digits}, checked after the download"


def _images(preprocessing: object) -> str:
    values = vars(preprocessing)
    edges = f"short edge {values['short_edge']}, long edge at most {values['long_edge']} pixels"
    resize = {"pil": "Pillow's", "cv2": "OpenCV's"}[values["resize"]]
    padding = f"padded to multiples of {values['divisor']}" if values["divisor"] > 1 else "no padding"
    return f"{edges} ({resize} bilinear), {values['channel_order']}, {padding}"


def _training(entry: Entry) -> str:
    published = entry.published()
    recipe = published.recipe
    start = f", from {published.pretrained}" if published.pretrained else ""
    name = f"; recipe {published.name}" if published.name != entry.name else ""
    return (
        f"{recipe.steps:,} updates of {recipe.batch_size} images of {entry.data}, SGD at {recipe.learning_rate:g}"
        f"{start}{name}"
    )
