"""Whole models, part by part: as the originals compute them, as they come, and optimized, in one run.

    python benchmarks/whole_model.py --threads 2
    python benchmarks/whole_model.py --threads 2 --models X101 R101 --repeats 3

The models are published ones with random weights, and small images of noise enlarged: instance models see 800x1088
pixels and return 100 detections, semantic ones 1024x2048 (Detectron2's R-101) and 512x1024 (MMSegmentation's R-50). Two
have a backbone of torchvision's instead: the instance model of R-50 ConvNeXt-T, and SemanticFPN at 512x1024 Swin-T.
"Textbook" runs the network as it was published, with PointRend written as the originals do it: all class channels of
every box, or of the whole image. "Default" is what `predict` does, "optimized" and "bfloat16" are
`model.optimize()` and `model.optimize("bfloat16")`, "compiled" the latter with ``compile=True`` (only with --compile;
the seconds that its first image takes are printed below). Ways alternate; medians, and the quartiles of the sum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mask_branch
import torch
from torch import Tensor, nn

from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import with_backbone
from pointrend.models.boxes import Regions
from pointrend.models.inputs import batch_images
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.semantic import SemanticSegmenter
from pointrend.zoo import ZOO

MODELS = {
    "R50": ("pointrend_rcnn_R_50_FPN_3x_coco", (800, 1088), None),
    "X101": ("pointrend_rcnn_X_101_32x8d_FPN_3x_coco", (800, 1088), None),
    "R101": ("pointrend_semantic_R_101_FPN_1x_cityscapes", (1024, 2048), None),
    "R50-MMSeg": ("pointrend_r50_4xb2-80k_cityscapes-512x1024", (512, 1024), None),
    "ConvNeXt-T": ("pointrend_rcnn_R_50_FPN_3x_coco", (800, 1088), "torchvision/convnext_tiny"),
    "Swin-T": ("pointrend_semantic_R_101_FPN_1x_cityscapes", (512, 1024), "torchvision/swin_t"),
}
Model = InstanceSegmenter | SemanticSegmenter


def build(name: str, detections: int, backbone: str | None = None) -> Model:
    """A published model with calm random weights: features keep their size through a hundred layers."""
    torch.manual_seed(0)
    config: Any = ZOO[name].config()
    if backbone is not None:
        config = with_backbone(config, BackboneConfig(backbone))
    sizes = replace(config.preprocessing, short_edge=None, long_edge=None)
    if ZOO[name].task == "semantic":
        model: Model = SemanticSegmenter(replace(config, preprocessing=sizes))
    else:
        # Untrained scores are all near 1 / 81: below a threshold of 0, the best are detections.
        boxes = replace(config.boxes, score_threshold=0.0, max_detections=detections)
        model = InstanceSegmenter(replace(config, preprocessing=sizes, boxes=boxes))
    for module in model.modules():
        last = getattr(module, "bn3", None)
        if last is not None:
            nn.init.constant_(last.weight, 0.2)
        if isinstance(module, nn.Conv1d) or (isinstance(module, nn.Linear) and module.out_features > 1024):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return model.eval()


def make_image(size: tuple[int, int]) -> Tensor:
    """uint8 (3, H, W): noise of 16 pixels a grain."""
    noise = torch.rand(1, 3, size[0] // 16, size[1] // 16) * 255
    return nn.functional.interpolate(noise, size=size, mode="bilinear")[0].to(torch.uint8)


@torch.no_grad()
def instance_parts(model: InstanceSegmenter, image: Tensor, textbook: bool, clock: Clock) -> Any:
    head = model.mask_head
    assert isinstance(head, PointRendMaskHead)
    batch = model.prepare([image])
    clock.start()
    features = model.features(batch)
    clock.part("backbone, FPN")
    proposals = model.propose(features, batch)
    clock.part("proposals")
    found = model.detect(features, proposals, batch)
    clock.part("boxes")
    boxes, labels = [found[0].boxes], [found[0].labels]
    if textbook:
        regions = Regions.from_lists(boxes, labels)
        masks = [mask_branch.textbook(head, features, regions)]
    else:
        masks = model.masks_for_boxes(features, boxes, labels)
    clock.part("masks")
    model.finish([image], batch, found, masks)
    clock.part("paste")
    return found


@torch.no_grad()
def semantic_parts(model: SemanticSegmenter, image: Tensor, textbook: bool, clock: Clock) -> Tensor:
    assert model.point_rend is not None
    batch = batch_images([image], model.config.preprocessing)
    clock.start()
    maps = model.features(batch.tensor)
    clock.part("backbone, FPN")
    coarse = model.coarse(maps)
    clock.part("coarse head")
    fine = [maps[name] for name in model.config.point_rend.features]  # type: ignore[union-attr]
    steps = model.config.point_rend.subdivision_steps  # type: ignore[union-attr]
    rows, columns = coarse.shape[-2:]
    sizes = None if steps is None else [(rows * 2**k, columns * 2**k) for k in range(1, steps + 1)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.precision is not None):
        if textbook:
            labels = model.point_rend.refine(coarse, fine, batch.padded_size, sizes=sizes).argmax(1)[0]
        else:
            labels = model.point_rend.render(coarse, fine, batch.padded_size, sizes=sizes)[0].label_map()
    clock.part("subdivision")
    return labels


class Clock:
    """Seconds of named parts, one after the other."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.parts, self.last = now, dict[str, float](), 0.0

    def start(self) -> None:
        self.parts, self.last = {}, self.now()

    def part(self, name: str) -> None:
        before, self.last = self.last, self.now()
        self.parts[name] = self.last - before


def agreement(models: dict[str, Model], image: Tensor, outputs: dict[str, Any]) -> str:
    """How near each way is to the default one, given the same boxes."""
    first = models["default"]
    if isinstance(first, SemanticSegmenter):
        same = {way: (labels == outputs["default"]).float().mean() for way, labels in outputs.items()}
        shown = ", ".join(f"{way} {share:.4f}" for way, share in same.items())
        return f"share of pixels labelled as by default: {shown}"
    found = outputs["default"][0]

    def masks(model: Model) -> Tensor:
        assert isinstance(model, InstanceSegmenter)
        features = model.features(model.prepare([image]))
        return model.masks_for_boxes(features, [found.boxes], [found.labels])[0]

    exact = masks(first)
    others = {way: model for way, model in models.items() if model is not first}
    notes = [f"{way} {mask_branch.mask_iou(masks(model), exact):.4f}" for way, model in others.items()]
    return f"{len(found.boxes)} detections; mask IoU with default, on the same boxes: {', '.join(notes)}"


@torch.no_grad()
def compare(short: str, arguments: argparse.Namespace) -> str:
    name, size, backbone = MODELS[short]
    if arguments.scale != 1:
        size = (round(size[0] * arguments.scale / 32) * 32, round(size[1] * arguments.scale / 32) * 32)
    default = build(name, arguments.detections, backbone)
    models: dict[str, Model] = {
        "textbook": default,
        "default": default,
        "optimized": default.optimize(),
        "bfloat16": default.optimize("bfloat16"),
    }
    if arguments.compile:
        models["compiled"] = default.optimize("bfloat16", compile=True)
    image = make_image(size)
    clock = Clock(time.process_time if arguments.clock == "processor" else time.perf_counter)

    def run(way: str) -> Any:
        model = models[way]
        parts: Any = instance_parts if isinstance(model, InstanceSegmenter) else semantic_parts
        return parts(model, image, way == "textbook", clock)

    outputs, started = {}, {}
    for way in models:  # also the warm-up
        outputs[way] = run(way)
        started[way] = sum(clock.parts.values())
    times: dict[str, list[dict[str, float]]] = {way: [] for way in models}
    for _ in range(arguments.repeats):
        for way in models:
            run(way)
            times[way].append(clock.parts)
    name = f"{name} on {backbone}" if backbone else name
    _print(f"{name}, {size[0]}x{size[1]}", times)
    note = agreement(models, image, outputs)
    if "compiled" in started:
        note += f"; the first image takes {started['compiled']:.0f} s compiled"
    return f"- {name}: {note}"


def _print(title: str, times: dict[str, list[dict[str, float]]]) -> None:
    parts = list(times["default"][0])
    print(f"\n{title}\n\n| way | {' | '.join(parts)} | sum, s | lowest to highest | times faster |")
    print(f"| --- |{' ---: |' * (len(parts) + 1)} --- | ---: |")
    sums = {way: [sum(one.values()) for one in runs] for way, runs in times.items()}
    base = statistics.median(sums["textbook"])
    for way, runs in times.items():
        each = " | ".join(f"{statistics.median(one[part] for one in runs):.3f}" for part in parts)
        median, least, most = statistics.median(sums[way]), min(sums[way]), max(sums[way])
        print(
            f"| {way} | {each} | {median:.3f} | {least:.3f}-{most:.3f} | {base / median:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--detections", type=int, default=100, help="objects in the image")
    parser.add_argument("--scale", type=float, default=1.0, help="of the images' sides, for a quick look")
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile, which takes minutes to start"
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor: for a machine shared with others",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    notes = [compare(short, arguments) for short in arguments.models]
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
