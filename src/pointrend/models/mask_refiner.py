"""Sharpen a mask from anywhere, of any class: a small network of its own, and PointRend at the uncertain pixels.

    image + mask -> guided filters -> U-shaped network at strides 2 to 16 -> a correction of the mask's logits
                                                                          -> PointRend at the uncertain pixels

The guided filter (He, Sun, Tang, ECCV 2010) moves outlines to edges of the image, right ones and wrong ones; the
network learns which of them to trust. Everything is a correction of the mask that was given: where it fits, none.

Shapes: B images, H W rows and columns of the image, h w of the image as the network sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.core.point_rend import PointRend
from pointrend.core.selection import Generators, PointSampling
from pointrend.models.inputs import Preprocessing, batch_images, check_image, normalise, resize_image
from pointrend.structures import IGNORE_LABEL

MAX_LOGIT = 4.0
"""Logit of a mask's pixel that is surely inside; -MAX_LOGIT outside."""
PIXELS = Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3, long_edge=1024, divisor=32)


@dataclass(frozen=True)
class MaskRefinerConfig:
    """A refiner's layers."""

    widths: tuple[int, int, int, int] = (24, 32, 48, 64)
    """Channels at strides 2, 4, 8 and 16."""
    radii: tuple[int, ...] = (4, 12)
    """Of the guided filters, in pixels."""
    point_width: int = 64
    training_points: int = 2048
    num_points: int = 32768
    """Pixels that are predicted anew, where the network sees the image in its own size."""
    mask_weight: float = 0.15
    """Share of the given mask's logits that is added to the result: more leaves right masks alone and corrects less."""


class MaskRefiner(nn.Module):
    """Corrects masks of images."""

    def __init__(self, config: MaskRefinerConfig) -> None:
        super().__init__()
        self.config = config
        seen = 4 + len(config.radii)  # pixels, mask, guided filters
        widths = config.widths
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(before, after, stride=2), *([_Residual(after)] if stage else []))
            for stage, (before, after) in enumerate(zip((seen, *widths), widths, strict=False))
        )
        self.merge = nn.ModuleList(nn.Conv2d(a + b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Residual(width) for width in widths[:-1])
        self.correction = nn.Conv2d(widths[0], 1, 1)
        assert self.correction.bias is not None
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        self.point_rend = PointRend(
            [seen, widths[0]],
            1,
            width=config.point_width,
            sampling=PointSampling(config.training_points),
            num_points=config.num_points,
        )

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Correction of the logits (B, 1, h/2, w/2) and features (B, widths[0], h/2, w/2) of :meth:`network_input`."""
        maps = []
        for stage in self.down:
            seen = stage(seen)
            maps.append(seen)
        for level in reversed(range(len(self.up))):
            coarser = F.interpolate(seen, size=maps[level].shape[-2:], mode="bilinear")
            seen = self.up[level](self.merge[level](torch.cat([maps[level], coarser], dim=1)))
        return self.correction(seen).float(), seen

    def network_input(self, image: Tensor, mask: Tensor, at: Tensor | None = None) -> Tensor:
        """What is seen of each pixel (B, 4 + radii, H, W): colour, the mask's logit, the guided filters' results.

        Args:
            image: (B, 3, h, w) normalised pixels.
            mask: (B, 1, h, w) probabilities, of the same pixels.
            at: (B, 4, H, W) pixels and mask in another size, where this is wanted.
        """
        whole = torch.cat([image, mask], dim=1) if at is None else at
        filtered = [
            guided_filter(image, mask, radius, whole[:, :3]).clamp(0, 1) * 2 - 1
            for radius in self.config.radii
        ]
        return torch.cat([whole[:, :3], mask_logits(whole[:, 3:]) / MAX_LOGIT, *filtered], dim=1)

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[MaskPair], *, generator: Generators = None
    ) -> dict[str, Tensor]:
        """Training losses, scalars: of the corrected logits and of the points.

        Args:
            images: uint8 (3, H, W) RGB of one size, sides divisible by 32.
            targets: of the same size.
        """
        image = batch_images(images, PIXELS).tensor
        mask = torch.stack([target.mask for target in targets])[:, None]
        labels = torch.stack([target.labels for target in targets])
        with torch.no_grad():
            seen = self.network_input(image, mask)
        correction, hidden = self(seen)
        half, truth = F.avg_pool2d(mask_logits(mask), 2), labels[:, 1::2, 1::2]
        losses = F.binary_cross_entropy_with_logits(
            (half + correction)[:, 0], (truth == 1).float(), reduction="none"
        )
        valid = truth != IGNORE_LABEL
        coarse = mask_logits(mask) + F.interpolate(correction, size=mask.shape[-2:], mode="bilinear")
        return {
            "coarse": (losses * valid).sum() / valid.sum().clamp(min=1),
            "points": self.point_rend.loss(coarse, [seen, hidden], labels, generator=generator),
        }

    @torch.no_grad()
    def logits(self, image: Tensor, mask: Tensor, *, num_points: int | None = None) -> Tensor:
        """Corrected logits (H, W) float32 of a mask of an image.

        Args:
            image: uint8 (3, H, W) RGB; the network sees it with at most 1,024 pixels a side.
            mask: (H', W') probabilities of any size, over the whole image.
            num_points: pixels predicted anew.
        """
        check_image(image)
        size = (image.shape[1], image.shape[2])
        whole = F.interpolate(mask[None, None].float(), size=size, mode="bilinear")
        small = resize_image(image, PIXELS)
        inside = (small.shape[1], small.shape[2])
        batch = batch_images([small], PIXELS).tensor
        padding = [0, batch.shape[3] - inside[1], 0, batch.shape[2] - inside[0]]
        pixels = F.pad(normalise(small, PIXELS)[None], padding, mode="replicate")
        given = F.pad(F.interpolate(whole, size=inside, mode="area"), padding, mode="replicate")
        seen = self.network_input(pixels, given)
        correction, hidden = self(seen)
        if size != inside:  # pixels and mask in their own size, padded by the same share
            rows, columns = (
                round(own * padded / seen_)
                for own, padded, seen_ in zip(size, batch.shape[2:], inside, strict=True)
            )
            own = torch.cat([normalise(image, PIXELS)[None], whole], dim=1)
            own = F.pad(own, [0, columns - size[1], 0, rows - size[0]], mode="replicate")
            seen = self.network_input(pixels, given, own)
        coarse = seen[:, 3:4] * MAX_LOGIT + F.interpolate(correction, size=seen.shape[-2:], mode="bilinear")
        if num_points is None:
            num_points = round(self.config.num_points * max(1.0, size[0] / inside[0]))
        refined = self.point_rend.refine(
            coarse, [seen, hidden], (seen.shape[2], seen.shape[3]), num_points=num_points
        )
        weighted = refined[0, 0] + self.config.mask_weight * MAX_LOGIT * seen[0, 3]
        return weighted[: size[0], : size[1]]


@dataclass(frozen=True)
class MaskPair:
    """What a mask should be, and what it was made into."""

    labels: Tensor
    """(H, W) 0, 1, or 255 where it does not count."""
    mask: Tensor
    """(H, W) probabilities."""


def mask_logits(mask: Tensor) -> Tensor:
    """Logits of probabilities, at most MAX_LOGIT."""
    return torch.logit(mask, 1e-4).clamp(-MAX_LOGIT, MAX_LOGIT)


def guided_filter(
    image: Tensor,
    mask: Tensor,
    radius: int,
    at: Tensor | None = None,
    *,
    shrink: int = 2,
    epsilon: float = 4e-3,
) -> Tensor:
    """The guided filter with a colour guide (He, Sun, Tang, ECCV 2010), computed on fewer pixels (arXiv 1505.00996).

    Args:
        image: (B, 3, H, W), from -1 to 1.
        mask: (B, 1, H, W).
        radius: of its windows in pixels.
        at: (B, 3, H', W') pixels at which it is wanted; those of ``image`` if not given.
        shrink: sides of the image over those that it is computed on; 1 is the filter of the first paper.
        epsilon: variance of a colour below which an area counts as flat.

    Returns:
        (B, 1, H', W') the mask as a function of the colour that is linear in every window.
    """
    window = 2 * (radius // shrink) + 1

    def box(x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, (window, 1), 1, (window // 2, 0), count_include_pad=False)
        return F.avg_pool2d(x, (1, window), 1, (0, window // 2), count_include_pad=False)

    size = [max(1, side // shrink) for side in image.shape[-2:]]
    color, inside = (F.interpolate(x, size=size, mode="area") for x in (image, mask))
    pairs = torch.stack([color[:, i] * color[:, j] for i in range(3) for j in range(i, 3)], dim=1)
    means = box(torch.cat([color, inside, color * inside, pairs], dim=1))
    mean, mask_mean, cross, squares = means.split([3, 1, 3, 6], dim=1)
    cross = cross - mean * mask_mean
    outer = torch.stack([mean[:, i] * mean[:, j] for i in range(3) for j in range(i, 3)], dim=1)
    a, b, c, d, e, f = (squares - outer).unbind(1)
    a, d, f = a + epsilon, d + epsilon, f + epsilon
    # The inverse of the symmetric ((a, b, c), (b, d, e), (c, e, f)) by its cofactors.
    A, B, C, D, E, G = (
        d * f - e * e,
        c * e - b * f,
        b * e - c * d,
        a * f - c * c,
        b * c - a * e,
        a * d - b * b,
    )
    x, y, z = cross.unbind(1)
    slope = torch.stack([A * x + B * y + C * z, B * x + D * y + E * z, C * x + E * y + G * z], dim=1)
    slope = slope / (a * A + b * B + c * C)[:, None]
    offset = mask_mean - (slope * mean).sum(1, keepdim=True)
    pixels = image if at is None else at
    lines = F.interpolate(box(torch.cat([slope, offset], dim=1)), size=pixels.shape[-2:], mode="bilinear")
    return (lines[:, :3] * pixels).sum(1, keepdim=True) + lines[:, 3:]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolution(width, width), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU()
    )
