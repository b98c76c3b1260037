"""Train the bundled model for photographs: the 21 classes of PASCAL VOC, outlines learnt from people.

    python -m tools.train_photo_model --data ../shared/data --out runs/photo-0

writes runs/photo-0/photo-semantic.safetensors (float16, the file that ships with the package) and scores.json. `--data`
holds three folders:

- weights/: a DeepLabV3-MobileNetV2 with batch norm folded in. Every layer that it has starts from it, and it is the
  teacher of what no label says.
- ccp/: photographs of people with pixel-accurate outlines.
- coco_mini/: photographs with COCO's polygons, which are coarse: a band around them is ignored.

Label maps of the 21 classes are drawn first, into the output folder.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import pad, resize

import pointrend
from pointrend.checkpoints.imagenet import torchvision_name
from pointrend.checkpoints.native import load, save
from pointrend.cli.console import training
from pointrend.core.selection import Generators, PointSampling
from pointrend.data.class_table import ClassTable
from pointrend.data.coco import CocoInstances
from pointrend.data.image_io import read_image
from pointrend.data.label_folders import SemanticFolder, read_pairs
from pointrend.data.label_io import read_labels
from pointrend.data.transforms import (
    ColorJitter,
    Compose,
    RandomCrop,
    RandomFlip,
    RandomScale,
    happens,
    integer,
    uniform,
)
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.semantic_metrics import boundary_region
from pointrend.metadata import pascal_voc
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import Losses
from pointrend.models.inputs import Preprocessing, batch_images, resize_to
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import IGNORE_LABEL, Sample, SemanticTarget
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train as run_training
from pointrend.training.recipe import Recipe

Pair = tuple[Path, Path]
VOC_OF_COCO = {
    "airplane": "aeroplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "boat",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "cow": "cow",
    "dining table": "diningtable",
    "dog": "dog",
    "horse": "horse",
    "motorcycle": "motorbike",
    "person": "person",
    "potted plant": "pottedplant",
    "sheep": "sheep",
    "couch": "sofa",
    "train": "train",
    "tv": "tv",
}
"""COCO's categories that are classes of PASCAL VOC, in the order of VOC."""
CLASS_NAMES = ("background", *VOC_OF_COCO.values())
PERSON = CLASS_NAMES.index("person")
TEACHER = "weights/deeplabv3_mobilenetv2_voc_bnfolded_fp16.safetensors"
CROP = 448
WHOLE = (704, 480)
CLASSES = ClassTable(CLASS_NAMES, pascal_voc.palette())
OTHERS = len(CLASS_NAMES)
"""Label of the people of `ccp` who are not the one in front, in training."""
WITH_OTHERS = ClassTable((*CLASS_NAMES, "somebody else"), pascal_voc.palette(OTHERS + 1))


def config() -> SemanticConfig:
    """DeepLabV3 at output stride 16, the teacher's, and a point head on a small pyramid, the stem and the pixels."""
    return SemanticConfig(
        CLASS_NAMES,
        CLASSES.palette,
        backbone=BackboneConfig("mobilenet_v2", norm="batch", output_stride=16),
        preprocessing=Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3, long_edge=1024, divisor=32),
        decoder="deeplab",
        rates=(),
        decoder_channels=256,
        fpn_channels=48,
        point_rend=SemanticPointRendConfig(
            features=("image", "stem", "p2", "p3", "p4", "p5"),
            width=128,
            residual=True,
            sampling=PointSampling(2048),
            num_points=8192,
            full_resolution=True,
        ),
    )


class TaughtTarget(SemanticTarget):
    """Labels of an image on which the teacher is asked, too."""


@dataclass(frozen=True)
class Taught(Dataset[Sample]):
    """The samples of a data set with `TaughtTarget`s."""

    data: SemanticFolder

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        sample = self.data[index]
        return replace(sample, target=TaughtTarget(sample.target.labels))


class Student(SemanticSegmenter):
    """The model in training: batch norms keep the teacher's statistics; their scales and shifts learn."""

    def __init__(self, config: SemanticConfig, teacher: SemanticSegmenter | None = None) -> None:
        super().__init__(config)
        self.teach_by(teacher, teach_cells)
        self.others_are_background = False
        self._taught: tuple[Tensor, Tensor] | None = None  # indices, (T, C, h, w) probabilities
        self._others: list[Tensor] = []  # (h, w) masks
        for block in self.backbone.get_submodule("res5"):
            for conv in block.modules():
                if isinstance(conv, nn.Conv2d) and conv.dilation == (2, 2):
                    conv.forward = partial(dilated_by_two, conv)  # type: ignore[method-assign]

    def teach_by(
        self, teacher: SemanticSegmenter | None, cells: Callable[[SemanticSegmenter, Tensor], Tensor]
    ) -> None:
        """Ask this teacher, whose probabilities (B, C, h, w) in our cells ``cells`` computes."""
        self._teacher = (teacher, cells)  # in a tuple: no submodule

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[SemanticTarget], *, generator: Generators = None
    ) -> Losses:
        taught = [n for n, target in enumerate(targets) if isinstance(target, TaughtTarget)]
        self._taught = None
        teacher, cells = self._teacher
        if taught and teacher is not None:
            batch = batch_images([images[n] for n in taught], self.config.preprocessing, self.device)
            self._taught = torch.tensor(taught, device=self.device), cells(teacher, batch.tensor)
        self._others = [target.labels == OTHERS for target in targets]
        known = [
            SemanticTarget(target.labels.masked_fill(others, IGNORE_LABEL))
            for target, others in zip(targets, self._others, strict=True)
        ]
        return super().loss(images, known, generator=generator)

    def coarse_loss(self, coarse: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy at every fourth pixel (21 logits at each would be a fifth of an update), and the
        Kullback-Leibler divergence from the teacher in cells where no label says that it is wrong.

        Who is in front is seen from afar: only here are other people background, while the points ignore them.
        """
        if self.others_are_background:
            labels = labels.clone()
            for label_map, others in zip(labels, self._others, strict=True):
                label_map[: others.shape[0], : others.shape[1]][others] = 0
        loss = super().coarse_loss(coarse, labels[:, 2::4, 2::4])
        if self._taught is None:
            return loss
        index, probability = self._taught
        truth = labels[index][:, 8::16, 8::16]
        right = (truth == IGNORE_LABEL) | (truth == probability.argmax(1))
        log_probability = coarse[index].float().log_softmax(1)
        divergence = F.kl_div(log_probability, probability, reduction="none").sum(1)
        return loss + (divergence * right).sum() / right.sum().clamp(min=1)


def dilated_by_two(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise 3x3 convolution of dilation 2 as four plain ones on every other row and column: its gradient is ten
    times faster on a CPU."""
    batch, channels, height, width = x.shape
    if height % 2 or width % 2:
        return F.conv2d(x, conv.weight, None, 1, 2, 2, conv.groups)
    parts = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
    parts = parts.reshape(batch * 4, channels, height // 2, width // 2)
    parts = F.conv2d(parts, conv.weight, None, 1, 1, 1, conv.groups)
    parts = parts.view(batch, 2, 2, channels, height // 2, width // 2).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels, height, width)


def convolutions_and_norms(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """Name, convolution and the batch norm behind it."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for (name, conv), (_, norm) in pairwise(layers):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            yield name, conv, norm


@torch.no_grad()
def build_teacher(weights: Path) -> SemanticSegmenter:
    """The 21-class DeepLabV3 of `weights`: batch norms that add its biases, and a 3x3 convolution that changes nothing.

    Its logits belong to a corner-aligned grid, and its sizes are 16 n + 1; see `teach`.
    """
    model = SemanticSegmenter(replace(config(), point_rend=None))
    tensors = {name: tensor.float() for name, tensor in load_file(str(weights)).items()}

    def fill(conv: nn.Conv2d, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor) -> None:
        conv.weight.copy_(weight)
        norm.weight.fill_(1.0)
        norm.bias.copy_(bias)
        cast(Tensor, norm.running_mean).zero_()
        cast(Tensor, norm.running_var).fill_(1.0 - norm.eps)

    for name, conv, norm in convolutions_and_norms(model.backbone):
        key = torchvision_name(model.config.backbone, name)
        fill(conv, norm, tensors[f"{key}.weight"], tensors[f"{key}.bias"])
    layers = [(conv, norm) for _, conv, norm in convolutions_and_norms(model.decoder)]
    width = model.config.decoder_channels
    for key, (conv, norm) in zip(("aspp", "image_pooling", "projection"), layers, strict=False):
        weight = tensors[f"head.{key}.weight"]
        if key == "projection":  # the pooled branch comes first in the file, and last here
            weight = torch.cat([weight[:, width:], weight[:, :width]], dim=1)
        fill(conv, norm, weight, tensors[f"head.{key}.bias"])
    conv, norm = layers[-1]
    fill(conv, norm, nn.init.dirac_(conv.weight), torch.zeros(width))
    model.decoder.predictor.weight.copy_(tensors["head.logits.weight"])
    cast(Tensor, model.decoder.predictor.bias).copy_(tensors["head.logits.bias"])
    return model.eval()


@torch.no_grad()
def teach(teacher: SemanticSegmenter, image: Tensor) -> Tensor:
    """Probabilities (C, H, W) of the teacher for a uint8 image (3, H, W)."""
    height, width = image.shape[1:]
    size = (max(1, round((height - 1) / 16)) * 16 + 1, max(1, round((width - 1) / 16)) * 16 + 1)
    preprocessing = replace(teacher.config.preprocessing, divisor=1)
    batch = batch_images([resize_to(image, size, "pil")], preprocessing)
    logits = teacher.coarse(teacher.features(batch.tensor))
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
    return F.interpolate(logits.softmax(1), size=(height, width), mode="bilinear", align_corners=False)[0]


@torch.no_grad()
def teach_cells(teacher: SemanticSegmenter, batch: Tensor) -> Tensor:
    """Probabilities (B, C, H / 16, W / 16) of the teacher in our cells of a normalised batch (B, 3, H, W)."""
    height, width = batch.shape[-2:]
    larger = F.interpolate(batch, size=(height + 1, width + 1), mode="bilinear", align_corners=False)
    logits = teacher.coarse(teacher.features(larger))
    # Its grid is corner-aligned: the centre of each of our cells lies between four of its own.
    return F.avg_pool2d(logits, 2, 1).softmax(1)


@torch.no_grad()
def own_cells(teacher: SemanticSegmenter, batch: Tensor) -> Tensor:
    """The same of a model with our grid."""
    return teacher.coarse(teacher.features(batch)).float().softmax(1)


@torch.no_grad()
def condition(model: SemanticSegmenter, images: Sequence[Tensor]) -> None:
    """The same function with weights of one size, for an optimiser that changes all of them by the same steps.

    The maps between the blocks of MobileNetV2 have deviations of 2 to 40 in the teacher; they become 1. Then each
    kernel gets the size of a freshly initialised one, and its scale moves into the batch norm.
    """
    blocks = [model.backbone.get_submodule("stem")[1]]
    for stage in ("res2", "res3", "res4", "res5"):
        blocks += list(model.backbone.get_submodule(stage))
    outputs: dict[int, list[Tensor]] = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, n=n: outputs.setdefault(n, []).append(out.flatten()))
        for n, block in enumerate(blocks)
    ]
    model.eval()
    for image in images:
        model.features(batch_images([image], model.config.preprocessing).tensor)
    for hook in hooks:
        hook.remove()
    first = 0
    for n in range(len(blocks)):
        last = n == len(blocks) - 1
        if not last and blocks[n + 1].use_res_connect:
            continue
        deviation = float(torch.cat([torch.cat(outputs[i]) for i in range(first, n + 1)]).std())
        for own in blocks[first : n + 1]:
            own.conv[-1].weight /= deviation
            own.conv[-1].bias /= deviation
        readers = [own.conv[0][0] for own in blocks[first + 1 : n + 1]]
        if last:
            readers += [conv for _, conv, _ in convolutions_and_norms(model.decoder)][:2]
        else:
            readers.append(blocks[n + 1].conv[0][0])
        for conv in readers:
            conv.weight *= deviation
        first = n + 1
    for _, conv, norm in convolutions_and_norms(model):
        scale = conv.weight.flatten(1).norm(dim=1).clamp(min=1e-4)  # (out,)
        conv.weight /= scale[:, None, None, None]
        norm.weight *= scale


def build_student(
    teacher: SemanticSegmenter, images: Sequence[Tensor], seed: int, *, points: bool = True
) -> Student:
    """The model before training: the teacher's layers, a fresh pyramid, and a point head that changes nothing yet.

    Without ``points`` it has no pyramid and no point head.
    """
    frozen = teacher.optimize("bfloat16")  # has the teacher's weights to itself
    condition(teacher, images)
    torch.manual_seed(seed)
    student = Student(config() if points else replace(config(), point_rend=None), frozen)
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    if unexpected or not all(name.startswith(("fpn.", "point_rend.")) for name in missing):
        raise ValueError(f"the teacher does not fit the model: {unexpected}, {missing}")
    return student


def draw_coco_labels(
    data: CocoInstances, folder: Path, *, band: tuple[int, int], limit: int | None = None
) -> list[Pair]:
    """Label maps of the polygons, larger objects below smaller ones.

    Ignored are crowds, and at outlines `band` pixels of the object and of the background. The first number is the
    smaller: most of a thin thing lies at its outline.
    """
    pairs = []
    for image_id in data.image_ids[:limit]:
        target = data.placed(image_id).target()
        masks = list(target.masks)
        labels = torch.zeros(target.masks.image_size, dtype=torch.int32)
        crowds = torch.zeros_like(labels, dtype=torch.bool)
        for n in sorted(range(len(target)), key=lambda n: -int(masks[n].sum())):
            if target.crowd[n]:
                crowds |= masks[n]
            else:
                labels[masks[n]] = int(target.labels[n]) + 1
        ignored = crowds & (labels == 0)
        for part, width in zip((labels > 0, labels == 0), band, strict=True):
            if width:
                ignored |= part & boundary_region(labels, width, image_edge=False)
        labels[ignored] = IGNORE_LABEL
        name = Path(data.file.images[image_id].file_name)
        pairs.append((data.images / name, write_labels(labels, folder / f"{name.stem}.png")))
    return pairs


def draw_people(pairs: Iterable[Pair], folder: Path) -> list[Pair]:
    """Label maps of `ccp` for scoring: the person, and all else background."""
    return [
        (image, write_labels((read_labels(labels) > 0) * PERSON, folder / f"{labels.stem}.png"))
        for image, labels in pairs
    ]


def draw_people_and_teacher(teacher: SemanticSegmenter, pairs: Iterable[Pair], folder: Path) -> list[Pair]:
    """Label maps of `ccp` for training: the person in front as labelled, the rest as far as the teacher knows.

    Within 16 pixels of the person all else is background. Further away the teacher's objects are labelled, other
    people as `OTHERS`; what it is not sure of is ignored.
    """
    drawn = []
    for image_path, label_path in pairs:
        path = folder / f"{label_path.stem}.png"
        drawn.append((image_path, path))
        if path.exists():
            continue
        person = read_labels(label_path) > 0
        near, outline = grown(person, 16), grown(person, 3)
        probability, best = teach(teacher, read_image(image_path)).max(0)
        rows = person.any(1).nonzero()[:, 0]
        if len(rows):  # what the teacher takes for people beside the feet are shadows
            ankles = int(rows[0] + 0.8 * (rows[-1] - rows[0]))
            best[ankles:][best[ankles:] == PERSON] = 0
        thing = (best != 0) & (best != PERSON) & (probability > 0.7)
        labels = best.masked_fill(probability < torch.where(best == 0, 0.5, 0.7), IGNORE_LABEL)
        labels[best == PERSON] = OTHERS
        labels[near] = 0
        labels[near & thing & ~outline] = IGNORE_LABEL
        labels[person] = PERSON
        write_labels(labels, path)
    return drawn


def ignore_others(teacher: SemanticSegmenter, pairs: Sequence[Pair], folder: Path) -> list[Pair]:
    """Label maps of `ccp` for scoring in which other people, as far as the teacher knows them, are ignored."""
    drawn = []
    for image, path in draw_people_and_teacher(teacher.optimize("bfloat16"), pairs, folder / "teacher"):
        labels = read_labels(path)
        person = (labels == PERSON) * PERSON
        drawn.append(
            (image, write_labels(person.masked_fill(labels == OTHERS, IGNORE_LABEL), folder / path.name))
        )
    return drawn


def grown(mask: Tensor, radius: int) -> Tensor:
    """The mask (H, W), dilated by a square of `radius` pixels to each side."""
    rows = F.max_pool2d(mask[None, None].float(), (2 * radius + 1, 1), 1, (radius, 0))
    return F.max_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius))[0, 0] > 0


def write_labels(labels: Tensor, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.numpy().astype(np.uint8)).save(path)
    return path


def open_coco(data: Path, split: str) -> CocoInstances:
    return CocoInstances(
        data / "coco_mini" / split,
        data / "coco_mini" / f"instances_{split}.json",
        categories=list(VOC_OF_COCO),
    )


def draw_training(
    data: Path, out: Path, limit: int | None, teacher: SemanticSegmenter
) -> dict[str, list[Pair]]:
    """Label maps to train on, in the folder `out`: images and label maps of "ccp" and "coco"."""
    people = read_pairs(data / "ccp" / "train.txt")[:limit]
    return {
        "ccp": draw_people_and_teacher(teacher.optimize("bfloat16"), people, out / "ccp-train"),
        "coco": draw_coco_labels(open_coco(data, "train"), out / "coco-train", band=(1, 2), limit=limit),
    }


def draw_validation(data: Path, out: Path, limit: int | None) -> dict[str, list[Pair]]:
    """The same for scoring: the labels alone."""
    return {
        "ccp": draw_people(read_pairs(data / "ccp" / "val.txt")[:limit], out / "ccp-val"),
        "coco": draw_coco_labels(open_coco(data, "val"), out / "coco-val", band=(0, 0), limit=limit),
    }


@dataclass(frozen=True)
class PasteSomebody:
    """In half of the images another photograph's person, smaller than the one in front and behind them."""

    pairs: Sequence[Pair]
    probability: float = 0.5

    def __call__(self, sample: Sample) -> Sample:
        labels = cast(SemanticTarget, sample.target).labels
        front = labels == PERSON
        if not happens(self.probability) or not front.any():
            return sample
        image_path, label_path = self.pairs[integer(len(self.pairs))]
        other = read_labels(label_path) == PERSON
        if not other.any():
            return sample
        _, top, _, bottom = masks_to_boxes(front[None])[0].int().tolist()
        x0, y0, x1, y1 = masks_to_boxes(other[None])[0].int().tolist()
        scale = uniform(0.3, 0.9) * (bottom - top + 1) / (y1 - y0 + 1)
        size = [max(1, round((y1 - y0 + 1) * scale)), max(1, round((x1 - x0 + 1) * scale))]
        cut = resize(read_image(image_path)[:, y0 : y1 + 1, x0 : x1 + 1], size)
        mask = resize(other[None, y0 : y1 + 1, x0 : x1 + 1], size, InterpolationMode.NEAREST_EXACT)
        # Feet in the lower half of the person in front; up to half of the width lies outside of the image.
        y = bottom - round(uniform(0.0, 0.5) * (bottom - top)) - size[0]
        x = integer(labels.shape[1]) - size[1] // 2
        frame = [x, y, labels.shape[1] - x - size[1], labels.shape[0] - y - size[0]]  # negative: cut off
        behind = pad(mask, frame)[0] & ~front
        new = torch.where(grown(front, 16), 0, OTHERS).to(labels.dtype)
        return replace(
            sample,
            image=torch.where(behind, pad(cut, frame), sample.image),
            target=SemanticTarget(torch.where(behind, new, labels)),
        )


def training_data(pairs: Mapping[str, Sequence[Pair]]) -> ConcatDataset[Any]:
    """Crops of both sets, each `ccp` image drawn twice for three times of a COCO image."""
    last = (RandomCrop(CROP, CROP), RandomFlip(), ColorJitter())
    people = SemanticFolder(pairs["ccp"], WITH_OTHERS, transforms=Compose([RandomScale(0.5, 1.75), *last]))
    things = SemanticFolder(pairs["coco"], CLASSES, transforms=Compose([RandomScale(0.7, 1.75), *last]))
    return ConcatDataset([people] * 2 + [Taught(things)] * 3)


def whole_people(pairs: Mapping[str, Sequence[Pair]]) -> ConcatDataset[Any]:
    """Nearly whole images of `ccp`, those with other people four times as often, and as many crops of COCO's."""
    last = (RandomCrop(*WHOLE, largest_share=1), RandomFlip(), ColorJitter())
    crowded = [pair for pair in pairs["ccp"] if (read_labels(pair[1]) == OTHERS).float().mean() > 0.01]
    steps = Compose([PasteSomebody(pairs["ccp"]), RandomScale(0.55, 1.0), *last])
    people = SemanticFolder([*pairs["ccp"], *crowded * 3], WITH_OTHERS, transforms=steps)
    things = SemanticFolder(pairs["coco"], CLASSES, transforms=Compose([RandomScale(0.7, 1.5), *last]))
    return ConcatDataset([people] + [Taught(things)] * 4)


def recipe(steps: int, seed: int, *, learning_rate: float, fresh: float | None) -> Recipe:
    """AdamW; the backbone learns at half the head's rate, pyramid and point head, if any, at ``fresh`` times it.

    The average of the last weights is kept.
    """
    return Recipe(
        steps=steps,
        batch_size=6,
        accumulate=3,  # two images at a time stay in a CPU's cache
        mean_over="part",
        optimizer="adamw",
        learning_rate=learning_rate,
        weight_decay=0.01,
        backbone_factor=0.5,
        rate_factors=() if fresh is None else (("fpn", fresh), ("point_rend", fresh)),
        warmup_steps=min(100, steps // 5),
        clip_gradient=5.0,
        precision="bfloat16",
        channels_last=True,
        average=0.996,
        log_every=10,
        state_every=250,
        seed=seed,
    )


@torch.no_grad()
def blend(model: SemanticSegmenter, before: Mapping[str, Tensor], share: float) -> None:
    """Backbone and coarse head become a mean of ``share`` of their weights and the rest of those ``before`` training.

    What two small data sets made the model forget comes back, and most of what they taught it stays (Wortsman et al.,
    Robust fine-tuning of zero-shot models, CVPR 2022). Pyramid and point head fit the mean as they are.
    """
    for name, value in model.state_dict().items():
        if name.startswith(("backbone.", "decoder.")) and value.is_floating_point():
            value.lerp_(before[name].to(value), 1 - share)


VARIANTS: dict[str, dict[str, Any]] = {
    "bilinear": {"refine": False},
    "N=2048": {"num_points": 2048},
    "N=8192": {"num_points": 8192},
}


def score(model: SemanticSegmenter, pairs: Mapping[str, Sequence[Pair]]) -> dict[str, dict[str, float]]:
    """Scores in percent by variant: the person on `ccp` val, all classes on `coco_mini` val."""
    variants = VARIANTS if model.point_rend is not None else {"bilinear": {}}
    people = evaluate_semantic(
        model,
        SemanticFolder(pairs["ccp"], CLASSES),
        variants,
        metrics=("miou", "boundary"),
        widths=(3, 10),
    )
    things = evaluate_semantic(
        model, SemanticFolder(pairs["coco"], CLASSES), variants, metrics=("miou", "trimap"), widths=(1, 3)
    )
    columns = ("IoU", "boundary IoU@3px", "boundary IoU@10px")
    return {
        ours.name: {
            **{f"ccp person {column}": _percent(ours.per_class[column][PERSON]) for column in columns},
            **{f"coco {name}": _percent(value) for name, value in theirs.numbers.items()},
            "coco person IoU": _percent(theirs.per_class["IoU"][PERSON]),
        }
        for ours, theirs in zip(people, things, strict=True)
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


def provenance(command: str, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What the file says about itself."""
    return {
        "name": "photo-semantic",
        "licence": "Apache-2.0 for the weights as such; the data's terms are named under data and started_from",
        "started_from": "DeepLabV3-MobileNetV2, trained by its authors on COCO and PASCAL VOC (images under Flickr's "
        "terms): deeplabv3_mnv2_pascal_quant.tflite of google-coral/test_data, Apache-2.0; it is the teacher, too",
        "data": "753 photographs of Clothing Co-Parsing (bearpaw/clothing-co-parsing, Apache-2.0 by its repository; "
        "they show people, and their photographers' rights are not stated); 343 images of COCO 2017 "
        "(annotations CC BY 4.0; images under their Flickr licences, some of them non-commercial)",
        "command": command,
        "scores": scores,
        "torch": torch.__version__,
    }


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/, ccp/ and coco_mini/")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for label maps, checkpoints and the model"
    )
    made = parser.add_mutually_exclusive_group()
    made.add_argument("--steps", type=int, default=1750, help="updates before the weights are blended")
    parser.add_argument(
        "--front-steps",
        type=int,
        default=0,
        help="further updates in which people behind the one in front are background",
    )
    made.add_argument("--start", type=Path, help="a model that this wrote, in place of training and blending")
    parser.add_argument(
        "--trial", type=int, help="so many updates alone, scored on every fourth image; no model is written"
    )
    parser.add_argument(
        "--without-points", action="store_true", help="no pyramid and no point head, to compare with"
    )
    parser.add_argument("--score", help="score this model, by path or name, and train nothing")
    parser.add_argument(
        "--ignore-others",
        action="store_true",
        help="with --score: ignore people of `ccp` who are not labelled",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="images of each set, for a trial")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that read images")
    options = parser.parse_args()
    if options.trial is not None and options.trial < 1:
        parser.error(f"--trial: expected 1 update or more, got {options.trial}")
    if options.start is not None and (options.trial is not None or not options.front_steps):
        parser.error("--start: expected --front-steps beside it, which train on from it, and no --trial")
    if options.without_points and options.front_steps:
        parser.error("--without-points: expected no --front-steps beside it, which train the point head")
    if options.ignore_others and options.score is None:
        parser.error("--ignore-others: expected --score MODEL beside it")
    torch.set_num_threads(options.threads)
    validation = draw_validation(options.data, options.out / "labels", options.limit)
    if options.ignore_others:
        people = read_pairs(options.data / "ccp" / "val.txt")[: options.limit]
        teacher = build_teacher(options.data / TEACHER)
        validation["ccp"] = ignore_others(teacher, people, options.out / "labels" / "ccp-val-ignored")
    if options.score is not None:
        print(json.dumps(score(pointrend.load(options.score), validation), indent=1))
        return
    teacher = build_teacher(options.data / TEACHER)
    pairs = draw_training(options.data, options.out / "labels", options.limit, teacher)
    images = [read_image(image) for name in ("ccp", "coco") for image, _ in pairs[name][:8]]
    points = not options.without_points
    fresh = 5.0 if points else None
    model = build_student(teacher, images, options.seed, points=points)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def part(name: str, settings: Recipe, make: Callable[..., ConcatDataset[Any]] = training_data) -> None:
        loader = TrainingLoader(make(pairs), settings, workers=options.workers)
        with training(settings.steps) as report:
            run_training(
                model, loader, settings, out=options.out / name, report=report, device="cpu", resume=True
            )

    if options.trial is not None:
        settings = recipe(options.trial, options.seed, learning_rate=2e-4, fresh=fresh)
        part(
            "trial", replace(settings, average=0.0)
        )  # the average of a short training is mostly its beginning
        print(json.dumps(score(model.eval(), {name: own[::4] for name, own in validation.items()}), indent=1))
        return
    if options.start is not None:
        model.load_state_dict(load(options.start).state_dict())
    else:
        part("training", recipe(options.steps, options.seed, learning_rate=2e-4, fresh=fresh))
        blend(model, before, 0.6)
    if options.front_steps:
        keeper = SemanticSegmenter(config())
        keeper.load_state_dict(model.state_dict())
        model.teach_by(keeper.eval().optimize("bfloat16"), own_cells)
        model.others_are_background = True
        settings = recipe(options.front_steps, options.seed + 3, learning_rate=8e-5, fresh=4.0)
        part("front", replace(settings, batch_size=4, accumulate=2, average=0.998), whole_people)
    scores = score(model.eval(), validation)
    print(json.dumps(scores, indent=1))
    (options.out / "scores.json").write_text(json.dumps(scores, indent=1))
    start = f"--steps {options.steps}" if options.start is None else f"--start {options.start.name}"
    command = f"python -m tools.train_photo_model --data DATA --out OUT {start}"
    if options.front_steps:
        command += f" --front-steps {options.front_steps}"
    command += f" --seed {options.seed}" + " --without-points" * options.without_points
    save(
        copy.deepcopy(model).half(),
        options.out / "photo-semantic.safetensors",
        extra=provenance(command, scores),
    )


if __name__ == "__main__":
    main()
