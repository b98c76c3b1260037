"""Colours and textures for generated scenes: all float32, grey levels 0..255."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pointrend.masks.polygons import Ring

Plane = NDArray[np.float32]
PATTERNS = ("plain", "stripes", "checks", "dots", "clouds")


@dataclass(frozen=True)
class Texture:
    """Two colours mixed by a pattern."""

    pattern: str
    colors: NDArray[np.float32]  # (2, 3)
    angle: float
    period: float
    phase: float

    @classmethod
    def drawn(
        cls,
        rng: np.random.Generator,
        hue: float,
        spread: float,
        unit: float,
        saturation: tuple[float, float] = (0.4, 0.95),
    ) -> Texture:
        """A texture around a hue (0..1, give or take `spread`), its period in proportion to `unit` pixels."""
        tones = [_tone(rng, hue + rng.uniform(-spread, spread), saturation) for _ in range(2)]
        return cls(
            pattern=PATTERNS[int(rng.integers(len(PATTERNS)))],
            colors=np.array(tones, dtype=np.float32),
            angle=rng.uniform(0, pi),
            period=unit * rng.uniform(0.03, 0.12),
            phase=rng.uniform(0, 1),
        )

    def paint(self, rng: np.random.Generator, top: int, left: int, height: int, width: int) -> Plane:
        """(height, width, 3) colours of this window."""
        y = np.arange(top, top + height, dtype=np.float32)[:, None]
        x = np.arange(left, left + width, dtype=np.float32)[None, :]
        across, along = (np.float32(f(self.angle) / self.period) for f in (cos, sin))
        u: Plane = x * across + y * along + np.float32(self.phase)
        v: Plane = y * across - x * along
        mix = self._mix(rng, u, v)[..., None]
        return self.colors[0] + mix * (self.colors[1] - self.colors[0])

    def _mix(self, rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
        turn = np.float32(2 * pi)
        if self.pattern == "stripes":
            return _soft(np.sin(u * turn))
        if self.pattern == "checks":
            return _soft(np.sin(u * turn / 2) * np.sin(v * turn / 2))
        if self.pattern == "dots":
            return _soft(np.cos(u * turn) + np.cos(v * turn) - 0.7)
        if self.pattern == "clouds":
            return clouds(rng, u.shape[0], u.shape[1], max(3, max(u.shape) // 12))
        low, high = float(u.min()), float(u.max())
        return (u - low) / max(high - low, 1e-6)


def _soft(wave: Plane) -> Plane:
    """A wave in -1..1 as a mixture in 0..1 with steep but not hard flanks."""
    return (0.5 + 1.5 * wave).clip(0, 1)


def _tone(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float]
) -> tuple[float, float, float]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*saturation), rng.uniform(0.4, 0.95))
    return 255 * red, 255 * green, 255 * blue


def clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> Plane:
    """Smooth noise in 0..1 with about `cells` hills along the longer side."""
    longer = max(height, width)
    rows, columns = (max(2, round(cells * side / longer)) for side in (height, width))
    grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)


def background(rng: np.random.Generator, height: int, width: int) -> Plane:
    """(height, width, 3): two cloudy colours of any hue with patches of a texture of another."""
    rows, columns = (height + 1) // 2, (width + 1) // 2  # out of focus, and in a quarter of the time
    longer = max(rows, columns)
    first, second = Texture.drawn(rng, rng.random(), 0.12, longer, saturation=(0.1, 0.65)).colors
    image = first + clouds(rng, rows, columns, 4)[..., None] * (second - first)
    texture = Texture.drawn(rng, rng.random(), 0.12, 0.6 * longer, saturation=(0.1, 0.65))
    patch = ((clouds(rng, rows, columns, 5) - 0.45) * 6).clip(0, 0.8)[..., None]
    image += patch * (texture.paint(rng, 0, 0, rows, columns) - image)
    img = Image.fromarray(image.clip(0, 255).astype(np.uint8))
    return np.asarray(img.resize((width, height), Image.Resampling.BILINEAR)).astype(np.float32)


def blurred(share: Plane, radius: float) -> Plane:
    """Shares (0..1) smoothed by a Gaussian."""
    soft = Image.fromarray((share * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(soft).astype(np.float32) / np.float32(255)


def ellipse(rng: np.random.Generator, radius: float) -> list[Ring]:
    """An ellipse, up to twice as long as wide."""
    return [_round(radius, radius * rng.uniform(0.5, 1.0))]


def polygon(rng: np.random.Generator, radius: float) -> list[Ring]:
    """Three to six corners at irregular angles."""
    corners = int(rng.integers(3, 7))
    angles = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * pi / corners
    return [_polar(angles, radius * rng.uniform(0.8, 1.0, corners))]


def star(rng: np.random.Generator, radius: float) -> list[Ring]:
    """Four to eight spikes, some of them needles."""
    spikes = int(rng.integers(4, 9))
    angles = np.arange(2 * spikes) * pi / spikes
    return [_polar(angles, np.where(np.arange(2 * spikes) % 2, radius * rng.uniform(0.3, 0.6), radius))]


def ring(rng: np.random.Generator, radius: float) -> list[Ring]:
    """An ellipse with a hole, its band thin or thick."""
    squeeze, hole = rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.85)
    return [_round(radius, radius * squeeze), _round(radius * hole, radius * squeeze * hole)[::-1]]


def bar(rng: np.random.Generator, radius: float) -> list[Ring]:
    """A thin strip, bent along a circle by up to a third of a turn."""
    half_length, half_width = radius * rng.uniform(1.0, 1.6), max(radius * rng.uniform(0.04, 0.12), 1.0)
    turn = rng.uniform(0.02, 2 * pi / 3)
    bend = 2 * half_length / turn  # radius of the circle
    angles = np.linspace(-turn / 2, turn / 2, 24)
    outer, inner = _polar(angles, bend + half_width), _polar(angles[::-1], bend - half_width)
    return [np.concatenate([outer, inner]) - (bend, 0)]


def placed(contours: Sequence[Ring], x: float, y: float, angle: float) -> list[Ring]:
    """The contours turned about the origin by `angle` (radians) and moved to (x, y)."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [contour @ turn + (x, y) for contour in contours]


def _polar(angles: NDArray[np.float64], radius: NDArray[np.float64] | float) -> Ring:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1) * np.asarray(radius).reshape(-1, 1)


def _round(radius_x: float, radius_y: float, corners: int = 96) -> Ring:
    return _polar(np.arange(corners) * 2 * pi / corners, 1.0) * (radius_x, radius_y)
