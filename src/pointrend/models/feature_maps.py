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

    1x1 laterals, nearest upsampling and sum from the top, 3x3 outputs; with bias, no norm.

    Args:
        backbone_channels: `Backbone.channels`.
        levels: consecutive stages, finest first, which become "p2".. of the same number.
        channels: of every map of the pyramid.
        extra_level: one more, every other cell of the last output ("p6", for region proposals).

    Raises:
        ValueError: for levels that are no consecutive stages of the backbone.
    """

    def __init__(
        self,
        backbone_channels: Mapping[str, int],
        levels: Sequence[str] = STAGES[1:],
        channels: int = 256,
        *,
        extra_level: bool = False,
    ) -> None:
        stages = STAGES[1:]
        first = stages.index(levels[0]) if levels and levels[0] in stages else len(stages)
        if not levels or tuple(levels) != stages[first:][: len(levels)]:
            raise ValueError(
                f"levels: expected consecutive stages out of {stages}, finest first, got {tuple(levels)}"
            )
        in_channels = [backbone_channels[name] for name in levels]
        super().__init__(in_channels, channels, LastLevelMaxPool() if extra_level else None)
        self.levels = tuple(levels)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        maps = super().forward({name: x[name] for name in self.levels})
        first = int(self.levels[0].removeprefix("res"))
        return {f"p{first + i}": level for i, level in enumerate(maps.values())}
