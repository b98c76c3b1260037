"""What was found, cut out of its image: RGBA with everything else transparent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pointrend.data.decode import formats
from pointrend.masks.export import BACKGROUND, label_map
from pointrend.results import InstanceResult, Result
from pointrend.structures import IGNORE_LABEL, InstanceMasks

EDGE = 0.5
"""Least opacity of a mask's outermost pixels, so that an object of one pixel does not vanish."""


def check_foreground(class_names: Sequence[str]) -> None:
    """Raise ValueError if no class of a semantic model is background, so that nothing would be cut away."""
    if not any(name.lower() in BACKGROUND for name in class_names):
        shown = ", ".join(class_names[:20])
        raise ValueError(
            "cutout: no class of the model is called background; choose what to cut out by --classes (classes=): "
            f"{shown}"
        )


def foreground(result: Result) -> Tensor:
    """(H, W) bool: all objects; of a label map every class but background and ignored pixels."""
    if isinstance(result, InstanceResult):
        return label_map(result, nothing=-1) >= 0
    labels = result.labels.cpu()
    nothing = [n for n, name in enumerate(result.class_names) if name.lower() in BACKGROUND]
    return ~torch.isin(labels, torch.tensor([*nothing, IGNORE_LABEL], dtype=labels.dtype))


def soft_alpha(mask: Tensor) -> NDArray[np.uint8]:
    """Opacity 0..255 of a mask (H, W): 0 outside, 255 inside, and between on the outermost pixel of the inside, by how
    many of the pixels round it are inside. The image's border is no edge.
    """
    inside = mask.float()[None, None]
    share = F.avg_pool2d(F.pad(inside, (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0, 0]
    opacity = torch.where(mask, share.clamp(min=EDGE), 0.0)
    return (opacity * 255).round().to(torch.uint8).numpy()


def color_profile(path: str | Path) -> bytes | None:
    """The ICC profile that says which colours an RGB file's numbers stand for, as photographs of phones have one; None
    where there is none, for other colour spaces, and for what lies at an address.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            profile: bytes | None = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
            return profile
    except Exception:  # whatever Pillow raises for what is no file of an image
        return None


def cutout(image: Tensor, mask: Tensor) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 RGBA of an image (3, H, W) uint8 and a mask (H, W) bool."""
    pixels = image.cpu().permute(1, 2, 0).numpy()
    return np.concatenate([pixels, soft_alpha(mask)[..., None]], axis=2)


def object_cutouts(image: Tensor, result: InstanceResult) -> list[tuple[str, NDArray[np.uint8]]]:
    """Name ("1-person", best first) and RGBA of each object, as large as its mask; none for those without pixels."""
    found = []
    for number, detection in enumerate(result):
        tight = InstanceMasks.from_dense(detection.mask.cpu()[None])
        window, (x, y) = tight.windows[0], tight.offsets[0].tolist()
        if window.numel():
            height, width = window.shape
            whole = cutout(image, detection.mask.cpu())
            name = "".join(c if c.isalnum() or c in "-_ " else "_" for c in detection.class_name)
            found.append((f"{number + 1}-{name}", whole[y : y + height, x : x + width]))
    return found
