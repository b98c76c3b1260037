"""Colours and textures for generated scenes: all float32, grey levels 0..255."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

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
    picture = Image.fromarray(image.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).astype(np.float32)


def blurred(share: Plane, radius: float) -> Plane:
    """Shares (0..1) smoothed by a Gaussian."""
    soft = Image.fromarray((share * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(soft).astype(np.float32) / np.float32(255)
