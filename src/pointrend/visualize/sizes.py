"""How large figures may become."""

from __future__ import annotations

TALLEST = 50.0
"""Inches. A picture of 1x200 pixels would otherwise ask for a figure of gigabytes."""


def bounded(height: float) -> float:
    """A figure's height in inches, from 1 to `TALLEST`; what would be higher is drawn smaller."""
    return min(max(height, 1.0), TALLEST)
