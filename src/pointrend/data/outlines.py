"""Outlines of shapes, and which pixels lie inside them, exactly.

A shape is a list of closed contours, each (V, 2) float64 points (x, y) in continuous pixels (pixel centres at
.5). Outer contours turn one way and holes the other, so the signed crossings of a row add up to 1 inside and
to 0 outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]
Window = tuple[int, int, int, int]  # top, left, height, width


def inside(contours: Sequence[Contour], window: Window) -> NDArray[np.bool_]:
    """(height, width): whether each pixel's centre lies inside."""
    top, left, height, width = window
    row, x, sign = _crossings(contours, top, height, rows_per_pixel=1)
    first = np.ceil(np.clip(x - left, 0, width) - 0.5).astype(
        np.int64
    )  # the first centre right of the crossing
    turns = np.bincount(row * (width + 1) + first, sign, minlength=height * (width + 1))
    return np.abs(turns.reshape(height, width + 1).cumsum(axis=1)[:, :width]) > 0.5


def coverage(contours: Sequence[Contour], window: Window, rows_per_pixel: int = 5) -> NDArray[np.float32]:
    """(height, width): the share of each pixel inside, exact along x, from this many rows along y."""
    top, left, height, width = window
    row, x, sign = _crossings(contours, top, height, rows_per_pixel)
    x = np.clip(x - left, 0, width)
    pixel = np.floor(x).astype(np.int64)
    part = x - pixel  # how far into its pixel the crossing lies: so much of it is still before
    cell = row // rows_per_pixel * (width + 2) + pixel
    sums = np.bincount(cell, sign * (1 - part), minlength=height * (width + 2) + 1)
    sums += np.bincount(cell + 1, sign * part, minlength=height * (width + 2) + 1)
    share = sums[:-1].reshape(height, width + 2).cumsum(axis=1)[:, :width] / rows_per_pixel
    return np.abs(share).clip(0, 1).astype(np.float32)


def _crossings(
    contours: Sequence[Contour], top: int, height: int, rows_per_pixel: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Where edges cross the sampled rows: row number from the window's top, x, and direction, +1 or -1."""
    start = np.concatenate(list(contours))
    end = np.concatenate([np.roll(contour, -1, axis=0) for contour in contours])
    x, slope = start[:, 0], end - start
    # Row r lies at y = top + (r + .5) / rows_per_pixel. An edge owns the rows from its upper end to just
    # before its lower end, so a row through a vertex is counted once.
    first, last = (
        np.ceil((y - top) * rows_per_pixel - 0.5).clip(0, height * rows_per_pixel).astype(np.int64)
        for y in (np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1]))
    )
    count = last - first
    edge = np.repeat(np.arange(len(start)), count)
    row = np.arange(len(edge)) - np.repeat(count.cumsum() - count - first, count)
    y = top + (row + 0.5) / rows_per_pixel
    crossing = x[edge] + (y - start[edge, 1]) * slope[edge, 0] / slope[edge, 1]
    return row, crossing, np.sign(slope[edge, 1])


def bounds(contours: Sequence[Contour], height: int, width: int) -> Window:
    """The window that holds the contours, cut to the picture; without pixels if they lie outside."""
    low = np.floor(np.min([contour.min(axis=0) for contour in contours], axis=0)).astype(int)
    high = np.ceil(np.max([contour.max(axis=0) for contour in contours], axis=0)).astype(int)
    left, top = np.clip(low, 0, (width, height))
    right, bottom = np.clip(high, 0, (width, height))
    return int(top), int(left), int(max(bottom - top, 0)), int(max(right - left, 0))


def ellipse(rng: np.random.Generator, radius: float) -> list[Contour]:
    """An ellipse, up to twice as long as wide."""
    return [_round(radius, radius * rng.uniform(0.5, 1.0))]


def polygon(rng: np.random.Generator, radius: float) -> list[Contour]:
    """Three to six corners at irregular angles."""
    corners = int(rng.integers(3, 7))
    angles = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * pi / corners
    return [_polar(angles, radius * rng.uniform(0.8, 1.0, corners))]


def star(rng: np.random.Generator, radius: float) -> list[Contour]:
    """Four to eight spikes, some of them needles."""
    spikes = int(rng.integers(4, 9))
    angles = np.arange(2 * spikes) * pi / spikes
    return [_polar(angles, np.where(np.arange(2 * spikes) % 2, radius * rng.uniform(0.3, 0.6), radius))]


def ring(rng: np.random.Generator, radius: float) -> list[Contour]:
    """An ellipse with a hole, its band thin or thick."""
    squeeze, hole = rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.85)
    return [_round(radius, radius * squeeze), _round(radius * hole, radius * squeeze * hole)[::-1]]


def bar(rng: np.random.Generator, radius: float) -> list[Contour]:
    """A thin strip, bent along a circle by up to a third of a turn."""
    half_length, half_width = radius * rng.uniform(1.0, 1.6), max(radius * rng.uniform(0.04, 0.12), 1.0)
    turn = rng.uniform(0.02, 2 * pi / 3)
    bend = 2 * half_length / turn  # radius of the circle
    angles = np.linspace(-turn / 2, turn / 2, 24)
    outer, inner = _polar(angles, bend + half_width), _polar(angles[::-1], bend - half_width)
    return [np.concatenate([outer, inner]) - (bend, 0)]


def placed(contours: Sequence[Contour], x: float, y: float, angle: float) -> list[Contour]:
    """The contours turned about the origin by `angle` (radians) and moved to (x, y)."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [contour @ turn + (x, y) for contour in contours]


def _polar(angles: NDArray[np.float64], radius: NDArray[np.float64] | float) -> Contour:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1) * np.asarray(radius).reshape(-1, 1)


def _round(radius_x: float, radius_y: float, corners: int = 96) -> Contour:
    return _polar(np.arange(corners) * 2 * pi / corners, 1.0) * (radius_x, radius_y)
