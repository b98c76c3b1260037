"""What is under every head: a backbone by its configuration, and the feature pyramid on it.

B images, H W rows and columns. Maps are named as in Detectron2: the backbone's "stem" (stride 2), "res2" (4) .. "res5"
(32); the pyramid's "p2" .. "p5", and "p6" for region proposals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pointrend.models.backbones import STAGES, Backbone, BackboneConfig, build_stages
from pointrend.models.library_backbones import LibraryBackbone


def build_backbone(config: BackboneConfig) -> Backbone:
    """A randomly initialised backbone (its library's initialisation).

    Raises:
        ValueError: no such network, or one without maps of strides 4 to 32.
        ImportError: its library is not installed; says how to install it.
    """
    if config.library:
        return LibraryBackbone(config)
    return Backbone(config, *build_stages(config))


class FeaturePyramid(FeaturePyramidNetwork):
    """torchvision's feature pyramid under Detectron2's names: {"res2": .., "res5": ..} -> {"p2": .., "p5": ..}.

    With ``extra_level`` also "p6" at twice the stride of "p5".
    """

    def __init__(
        self, levels: Sequence[str], in_channels: Sequence[int], channels: int, extra_level: bool
    ) -> None:
        super().__init__(list(in_channels), channels, LastLevelMaxPool() if extra_level else None)
        self.levels = tuple(levels)
        self.channels = channels

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        maps = super().forward({name: x[name] for name in self.levels})
        first = int(self.levels[0].removeprefix("res"))
        return {f"p{first + i}": level for i, level in enumerate(maps.values())}


def build_fpn(
    backbone_channels: Mapping[str, int],
    levels: Sequence[str] = ("res2", "res3", "res4", "res5"),
    channels: int = 256,
    extra_level: bool = False,
) -> FeaturePyramid:
    """A feature pyramid: 1x1 laterals, nearest upsampling and sum from the top, 3x3 outputs; with bias, no norm.

    Args:
        backbone_channels: `Backbone.channels`.
        levels: consecutive stages, finest first, which become "p2".. of the same number.
        channels: of every map of the pyramid.
        extra_level: one more, every other cell of the last output ("p6", for region proposals).

    Raises:
        ValueError: for levels that are no consecutive stages of the backbone.
    """
    unknown = [name for name in levels if name not in STAGES[1:] or name not in backbone_channels]
    numbers = [int(name.removeprefix("res")) for name in levels if name not in unknown]
    if unknown or not levels or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError(
            f"levels: expected consecutive stages out of {STAGES[1:]}, finest first, got {tuple(levels)}"
        )
    return FeaturePyramid(levels, [backbone_channels[name] for name in levels], channels, extra_level)
