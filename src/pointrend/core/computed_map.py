"""Feature maps that are not there: computed at the points where they are read.

Shapes: N images, C channels, P points, H W rows and columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class ComputedMap(ABC):
    """A map of one image that is computed at the points where it is read, and nowhere else."""

    @abstractmethod
    def at(self, points: Tensor) -> Tensor:
        """Values (1, C, P) at points (1, P, 2) in the unit square of the map."""


FeatureMap = Tensor | ComputedMap
"""(N, C, H, W), (1, C, H, W) where all N share it, or what computes the values of the latter."""
