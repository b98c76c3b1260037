"""PointRend on a network that you already have: torchvision's DeepLabV3, FCN or LR-ASPP.

    python examples/refine_your_segmenter.py --network lraspp

All that PointRend needs is the network's logits before they are enlarged and one finer feature map. `Refined` is the
whole integration; the rest of the file trains it for a few steps on generated scenes, to show that it runs. Weights are
random here, so that nothing is downloaded: pass your own trained network instead.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation

import pointrend


class Refined(nn.Module):
    """A torchvision segmenter with crisp logits; `fine_layer` is the part of its backbone that gives fine features."""

    def __init__(self, segmenter: nn.Module, fine_layer: str, fine_channels: int, num_classes: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.point_rend = pointrend.PointRend(fine_channels, num_classes)
        segmenter.backbone[fine_layer].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._fine = output

    def coarse(self, images: Tensor) -> Tensor:
        """Logits (N, C, h, w) at the network's own stride; leaves the fine features (N, Cf, h', w') behind."""
        maps = self.segmenter.backbone(images)
        return self.segmenter.classifier(
            maps if isinstance(self.segmenter, segmentation.LRASPP) else maps["out"]
        )

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Your loss on the coarse logits plus PointRend's loss at points; labels (N, H, W), 255 ignored."""
        coarse = self.coarse(images)
        enlarged = F.interpolate(coarse, labels.shape[-2:], mode="bilinear", align_corners=False)
        yours = F.cross_entropy(enlarged, labels, ignore_index=255)
        return yours + self.point_rend.loss(coarse, self._fine, labels)

    def forward(self, images: Tensor) -> Tensor:
        """Crisp logits (N, C, H, W) at the images' own size."""
        coarse = self.coarse(images)
        return self.point_rend.refine(coarse, self._fine, images.shape[-2:])


# network -> (how to build it, a part of its backbone at stride 4, the channels there)
NETWORKS = {
    "deeplabv3": (segmentation.deeplabv3_resnet50, "layer1", 256),
    "fcn": (segmentation.fcn_resnet50, "layer1", 256),
    "lraspp": (segmentation.lraspp_mobilenet_v3_large, "3", 24),
}


def build(network: str, num_classes: int) -> Refined:
    """One of torchvision's networks with random weights, and PointRend on top."""
    make, fine_layer, fine_channels = NETWORKS[network]
    segmenter = make(weights=None, weights_backbone=None, num_classes=num_classes)
    return Refined(segmenter, fine_layer, fine_channels, num_classes)


def scenes(first: int, count: int) -> tuple[Tensor, Tensor]:
    """Generated scenes as a batch: images (N, 3, 128, 128) in -1..1 and labels (N, 128, 128)."""
    from pointrend.data.shapes import ShapeScenes

    samples = list(ShapeScenes(count, first=first, size=(128, 128)))
    images = torch.stack([sample.image for sample in samples]).float() / 127.5 - 1
    return images, torch.stack([sample.target.labels for sample in samples]).long()


def main(arguments: list[str] | None = None) -> None:
    """Train for a few steps, then refine one image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="lraspp")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = build(options.network, num_classes=6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(options.steps):
        loss = model.loss(*scenes(4 * step, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.3f}")
    images, labels = scenes(first=1_000_000, count=1)
    with torch.no_grad():
        crisp = model.eval()(images)
    right = (crisp.argmax(1) == labels).float().mean().item()
    before, after = ("x".join(map(str, logits.shape[-2:])) for logits in (model.coarse(images), crisp))
    print(f"logits of {before} cells became {after}: {right:.0%} of the pixels right")


if __name__ == "__main__":
    main()
