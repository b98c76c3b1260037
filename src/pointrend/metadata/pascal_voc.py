"""Pascal VOC's classes of segmentation (Everingham et al., 2010), and the colours of its label files."""

from __future__ import annotations

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
VOID_COLOR = (224, 224, 192)


def palette(count: int = len(CLASSES)) -> tuple[tuple[int, int, int], ...]:
    """The colour of each class: bits 0, 3, 6 of its number are red's upper bits, 1, 4, 7 green's, 2, 5, 8 blue's.

    Source: VOCdevkit, VOClabelcolormap.m.
    """
    return tuple(_color(number) for number in range(count))


def _color(number: int) -> tuple[int, int, int]:
    red, green, blue = (
        sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
