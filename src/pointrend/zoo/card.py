"""Model cards of the zoo's entries: what was published of a model, and the commands that measure or train it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import prod

from pointrend.checkpoints.hub import describe, origin_lines
from pointrend.zoo.backbones import PretrainedBackbone
from pointrend.zoo.bundled import Bundled
from pointrend.zoo.entries import COUNTED_SIZES, MULTIPLY_ADDS, Entry

DATA = {"COCO": "COCO", "Cityscapes": "CITYSCAPES", "ADE20K": "ADEChallengeData2016"}
"""What stands for the data set's folder in commands."""
FLIP = "--flip --scales 0.5 0.75 1 1.25 1.5 1.75"


def commands(entry: Entry) -> dict[str, str]:
    """By published score the command that would measure it on the official validation data; DATA has its folder.

    Empty where no weights were published.
    """
    start = f"pointrend eval {entry.name} --data {DATA[entry.data]} --metrics"
    city = entry.data == "Cityscapes" and entry.task == "instance"
    options = {
        "mask AP": "cityscapes" if city else "mask",
        "mask AP*": "mask --lvis lvis_v0.5_val.json",
        "box AP": "box",
        "mIoU": "miou",
        "mIoU ms+flip": f"miou {FLIP}",
    }
    return {name: f"{start} {options[name]}" for name, _ in entry.scores} if entry.url else {}


def scores(entry: Entry) -> str:
    """ "mask AP 38.3, mask AP* 41.6"."""
    digits = 2 if entry.project == "MMSegmentation" else 1
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in entry.scores) or "none"


def size(entry: Entry) -> str:
    """ "229.95 MB" as published, or "about 110 MB"; megabytes of 2**20 bytes."""
    if entry.mebibytes is not None:
        return f"{entry.mebibytes} MB"
    return f"about {entry.parameters * 4 / 2**20:.0f} MB"


def card(entry: Entry, training: Sequence[str] = ()) -> str:
    """The model card of a published model. training: lines about how it was trained."""
    config = entry.config()
    return "\n".join(
        [
            f"# {entry.name}",
            "",
            f"{describe(config)}. Published {'in the paper' if entry.project == 'paper' else f'by {entry.project}'}.",
            "",
            f"- Scores as published: {scores(entry)}"
            + (f" ({entry.score_source}). Not measured with this package yet." if entry.scores else "."),
            f"- Weights: {entry.url or 'none were published; `pointrend train` makes them'}",
            f"- File: {_file(entry)}",
            f"- Licence of the weights: {entry.licence}",
            f"- Parameters: {entry.parameters:,} (frozen norms are not counted)",
            *_published_facts(entry),
            f"- Images: {_images(config.preprocessing)}",
            *(f"- {line}" for line in training),
            "",
            *_how_to_score(entry),
            "",
            *_limits(entry, config.num_classes),
        ]
    )


def bundled_card(bundled: Bundled) -> str:
    """The model card of a bundled model; where its weights come from stands in its file."""
    from safetensors import safe_open

    from pointrend.checkpoints.native import read_info

    with safe_open(bundled.path, framework="pt") as file:
        origin = json.loads(file.metadata()["extra"])
        numbers = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no dictionary)
    kind, classes = "A network of its own", ""
    start = "refined = pointrend.refine_mask(image, mask)"
    if bundled.task != "refine":
        config = read_info(bundled.path).config
        kind, classes = describe(config), f"- Classes: {', '.join(config.class_names)}"
        start = f'model = pointrend.load("{bundled.name}")'
    megabytes = bundled.path.stat().st_size / 1e6
    return "\n".join(
        [
            f"# {bundled.name}",
            "",
            f"For {bundled.summary}.",
            "",
            f"    {start}",
            "",
            f"{kind}; {numbers / 1e6:.1f} million parameters, {megabytes:.1f} MB, in the package.",
            "",
            *filter(None, [classes]),
            *origin_lines({name: value for name, value in origin.items() if name != "name"}),
            "",
            f"**Limits.** {bundled.limits}",
            "",
        ]
    )


def _published_facts(entry: Entry) -> Iterator[str]:
    """What its publishers say besides, and what was counted."""
    rows, columns = COUNTED_SIZES[entry.data]
    yield (
        f"- Multiply-adds (what Detectron2 calls FLOPs): {MULTIPLY_ADDS[entry.name]} G for an image of {columns}x{rows}"
        + (" with 100 objects" if entry.task == "instance" else "")
        + ", counted, as all heads were published"
    )
    if entry.model_id:
        yield f"- Model id: {entry.model_id}"
    if entry.log:
        yield f"- Log of the training: {entry.log}"
    if entry.hardware:
        memory = f", {entry.memory_gb} GB on each" if entry.memory_gb is not None else ""
        yield f"- Trained on: {entry.hardware}{memory}"
    if entry.images_per_second is not None:
        yield f"- Inference as published: {entry.images_per_second} images a second"


def _limits(entry: Entry, classes: int) -> list[str]:
    """What is not known of published weights."""
    if not entry.url:
        return []
    text = f"It was trained on {entry.data}'s images and {classes} classes; how well it does on others is not known. "
    text += "That loading it gives what the original computes was shown with deterministic weights (docs/zoo.md), "
    text += "not with this file" + (
        "; for MMDetection's not even that." if entry.project == "MMDetection" else "."
    )
    return [text, ""]


def _how_to_score(entry: Entry) -> list[str]:
    if not entry.url:
        return ["To train it:", "", f"    pointrend train {entry.name} --data {DATA[entry.data]}"]
    lines = ["To measure it on the official validation data:", ""]
    for name, command in commands(entry).items():
        lines += [f"    {command}    # {name}"]
    if any("lvis" in command for command in commands(entry).values()):
        lines += ["", "AP* is AP on LVIS's finer annotations of COCO's categories."]
    return lines


def backbone_card(entry: PretrainedBackbone) -> str:
    """What is to be known about ImageNet weights."""
    widths = f"{entry.stem_width}, {entry.stem_width} and {2 * entry.stem_width} channels"
    stem = f"three 3x3 convolutions of {widths}" if entry.deep_stem else "one 7x7 convolution"
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
            f"- Stem: {stem}",
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
