"""Predictions drawn on the image, at the image's own resolution: fills, crisp outlines, names, a legend.

Everything here takes and returns arrays (H, W, 3) of uint8 RGB; nothing opens a window or keeps global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from pointrend.data.image_io import to_image
from pointrend.io import png_bytes
from pointrend.results import InstanceResult, Result, SemanticResult
from pointrend.structures import IGNORE_LABEL, class_name
from pointrend.visualize.colors import Colors, RGBImage, as_labels, as_palette, color_labels, heatmap
from pointrend.visualize.label_placement import Box, Mask, draw_captions, rgb, text_size, visible_part

Drawable = torch.Tensor | np.ndarray | Image.Image | str | Path
"""What `to_image` takes: a tensor (3, H, W), an array (H, W, 3) or (H, W), uint8 RGB; a Pillow image; a file."""


def as_image(image: Drawable) -> RGBImage:
    """A fresh (H, W, 3) uint8 copy of an image in any form that `to_image` takes; ValueError for others."""
    return np.array(to_image(image).cpu().permute(1, 2, 0).numpy())


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """An image (H, W, 3) or map (H, W) with each pixel repeated `factor` times along both axes."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def outline(mask: Mask, width: int = 1) -> Mask:
    """Pixels of `mask` (H, W) within `width` steps of its edge. The image's border counts as an edge."""
    inner = mask
    for _ in range(width):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def label_borders(labels: torch.Tensor | np.ndarray) -> Mask:
    """Pixels (H, W) whose right or lower neighbour has another label: a one-pixel line between regions."""
    array = as_labels(labels)
    borders = np.zeros(array.shape, dtype=bool)
    borders[:-1] |= array[:-1] != array[1:]
    borders[:, :-1] |= array[:, :-1] != array[:, 1:]
    return borders


def draw_labels(
    image: Drawable,
    labels: torch.Tensor | np.ndarray,
    palette: Colors | None = None,
    *,
    opacity: float = 0.55,
    borders: bool = True,
    ignore: int = 255,
) -> RGBImage:
    """The image under its label map (H, W), regions parted by a white line one pixel wide.

    `ignore`, and a class whose colour is black (the background of PASCAL VOC, say), stay bare.
    """
    drawn, array = as_image(image), as_labels(labels)
    if drawn.shape[:2] != array.shape:
        raise ValueError(f"labels: expected the image's size {drawn.shape[:2]}, got {array.shape}")
    colors = color_labels(array, palette, ignore=ignore)
    shown = colors.any(axis=2)
    mixed = np.rint(drawn * (1 - opacity) + colors * opacity).astype(np.uint8)
    drawn[shown] = mixed[shown]
    if borders:
        drawn[label_borders(array)] = 255
    return drawn


def draw_instances(
    image: Drawable,
    result: InstanceResult,
    *,
    min_score: float = 0.0,
    palette: Colors | None = None,
    color_by: Literal["class", "instance"] = "class",
    opacity: float = 0.45,
    boxes: bool = False,
    captions: bool = True,
) -> RGBImage:
    """The image with each instance filled, outlined at full resolution, and captioned with class name and score.

    Drawn from the lowest score to the highest, so that the best lies on top. A caption takes the first free
    place of a few in and beside its object: captions do not cover one another, nor other objects, while there is room.
    """
    drawn = as_image(image)
    if drawn.shape[:2] != tuple(result.masks.image_size):
        raise ValueError(
            f"image: expected the result's size {tuple(result.masks.image_size)}, got {drawn.shape[:2]}"
        )
    scores = result.scores.tolist()
    chosen = [i for i in np.argsort(np.asarray(scores), kind="stable").tolist() if scores[i] >= min_score]
    colors = as_palette(None, len(scores)) if color_by == "instance" else instance_colors(result, palette)
    width = max(1, round(min(drawn.shape[:2]) / 400))
    for i in chosen:
        fill_mask(drawn, result.masks.windows[i], result.masks.offsets[i].tolist(), colors[i], opacity, width)
    canvas = Image.fromarray(drawn)
    draw = ImageDraw.Draw(canvas)
    if boxes:
        for i in chosen:
            draw.rectangle(
                _inside(result.boxes[i].tolist(), canvas.size), outline=rgb(colors[i]), width=width
            )
    if captions:
        texts = {
            i: f"{class_name(result.class_names, int(result.labels[i]))} {scores[i]:.2f}"
            for i in reversed(chosen)
        }
        draw_captions(draw, result, texts, colors)
    return np.asarray(canvas)


def draw(
    image: Drawable,
    result: Result,
    *,
    min_score: float = 0.0,
    captions: bool = True,
    legend: bool = False,
) -> RGBImage:
    """The overlay that fits the result; with `legend` a strip under the image names its classes."""
    drawn = (
        draw_labels(image, result.labels, result.palette)
        if isinstance(result, SemanticResult)
        else draw_instances(image, result, min_score=min_score, captions=captions)
    )
    return add_legend(drawn, *class_legend(result, min_score)) if legend else drawn


def class_legend(result: Result, min_score: float = 0.0) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Names of the classes that occur in the result, in order, and their colours (K, 3)."""
    present = present_classes(result, min_score)
    palette = result.palette if isinstance(result, SemanticResult) else None
    colors = as_palette(palette, max(present, default=-1) + 1)[present]
    return [class_name(result.class_names, label) for label in present], colors


def draw_uncertainty(image: Drawable, uncertainty: torch.Tensor, *, opacity: float = 0.7) -> RGBImage:
    """The greyed image under its uncertainty map (H, W) with values in [0, 1], as an array (H, W, 3)."""
    photo = as_image(image)
    if photo.shape[:2] != tuple(uncertainty.shape):
        raise ValueError(
            f"uncertainty: expected the image's size {photo.shape[:2]}, got {tuple(uncertainty.shape)}"
        )
    grey = photo.mean(axis=2, keepdims=True)
    return np.rint(grey * (1 - opacity) + heatmap(uncertainty, 0.0, 1.0) * opacity).astype(np.uint8)


def present_classes(result: Result, min_score: float = 0.0) -> list[int]:
    """Numbers of the classes that occur in the result, without "ignored", in order."""
    labels = result.labels
    if isinstance(result, InstanceResult):
        labels = labels[result.scores >= min_score]
    return [int(label) for label in torch.unique(labels).tolist() if label != IGNORE_LABEL]


def overlay_png(result: Result, *, longest: int = 1024) -> bytes:
    """The overlay as a PNG file, at most so many pixels long, on white where the result has no image."""
    size = result.masks.image_size if isinstance(result, InstanceResult) else result.labels.shape
    image = result.image if result.image is not None else torch.full((3, *size), 255, dtype=torch.uint8)
    shown = Image.fromarray(draw(image, result, legend=isinstance(result, SemanticResult)))
    shown.thumbnail((longest, longest))
    return png_bytes(shown)


def instance_colors(result: InstanceResult, palette: Colors | None = None) -> npt.NDArray[np.uint8]:
    """The colour of each detection's class, (D, 3): every object of a class has the same."""
    labels = np.asarray(result.labels.tolist(), dtype=np.int64)
    return as_palette(palette, int(labels.max(initial=-1)) + 1)[labels]


def add_legend(image: RGBImage, names: Sequence[str], colors: Colors) -> RGBImage:
    """The image with a white strip below it: a square of each colour and its name, in as many rows as they need."""
    height, width = image.shape[:2]
    size = text_size(width, height)
    font, gap, x, y = ImageFont.load_default(size), size // 2, size // 2, size // 2
    places = []
    for name in names:
        needed = size + gap + round(font.getlength(name)) + 2 * gap
        if x + needed > width and x > gap:
            x, y = gap, y + size + gap
        places.append((x, y))
        x += needed
    strip = Image.new("RGB", (width, y + size + gap if names else 0), "white")
    draw = ImageDraw.Draw(strip)
    for (left, top), name, color in zip(places, names, colors, strict=True):
        draw.rectangle((left, top, left + size, top + size), fill=rgb(color), outline=(60, 60, 60))
        draw.text((left + size + gap, top + size // 2), name, fill="black", font=font, anchor="lm")
    return np.concatenate([image, np.asarray(strip)])


def fill_mask(
    image: RGBImage,
    window: torch.Tensor | np.ndarray,
    offset: Sequence[int],
    color: object,
    opacity: float,
    width: int,
) -> None:
    """Blend one mask's window into the image in place, then draw its outline in full colour with a light rim.

    Args:
        window: (h, w), non-zero inside. offset: (x, y) of its top-left pixel; it may lie partly outside of the image.
        width: of the outline's colour and of its rim, in pixels, both inside the mask.
    """
    area, mask = visible_part(image, window, offset)
    area[mask] = np.rint(area[mask] * (1 - opacity) + np.asarray(color) * opacity).astype(np.uint8)
    area[outline(mask, 2 * width)] = color
    area[outline(mask, width)] = 255


def _inside(box: Sequence[float], size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    x1, y1 = min(max(x1, 0.0), size[0] - 1.0), min(max(y1, 0.0), size[1] - 1.0)
    return x1, y1, max(x1, min(x2, size[0] - 1.0)), max(y1, min(y2, size[1] - 1.0))
