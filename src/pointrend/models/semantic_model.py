"""What semantic models have in common, whatever their network: coarse logits and maps in, losses and label maps out.

Shapes: B images, C classes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.core.fast_point_head import predict_in_images
from pointrend.core.lazy_grid import DenseLogits, LazyGrid
from pointrend.core.losses import Normalize, multiclass_point_loss, points_counted
from pointrend.core.point_rend import PointRend
from pointrend.core.sampling import FeatureMap
from pointrend.core.selection import Generators
from pointrend.core.subdivision import Size, SubdivisionStep
from pointrend.models.base import Losses, ModelConfig, Pretrained, in_own_precision
from pointrend.models.devices import require_memory
from pointrend.models.full_resolution import LayerAtPoints, continue_to_size
from pointrend.models.inputs import ImageBatch, batch_images, batch_labels, prepare_images
from pointrend.models.semantic_heads import SemanticPointRendConfig
from pointrend.results import SemanticResult
from pointrend.structures import IGNORE_LABEL, SemanticTarget

T = TypeVar("T")


class LabelMapConfig(ModelConfig):
    """The same of every semantic model."""

    palette: tuple[tuple[int, int, int], ...]
    loss_normalize: Normalize
    point_rend: SemanticPointRendConfig | None

    def result(self, labels: Tensor, uncertainty: Tensor | None = None) -> SemanticResult:
        """A label map (H, W), a byte a pixel where the classes fit, with their names and colours."""
        small = torch.uint8 if self.num_classes <= IGNORE_LABEL else torch.int64
        return SemanticResult(labels.to(small), self.class_names, self.palette, uncertainty)


class SemanticModel(Pretrained):
    """Losses and label maps from a network's coarse logits and maps; subclasses set `config` and `point_rend`."""

    task = "semantic"
    config: LabelMapConfig
    point_rend: PointRend | None

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> maps (B, channels, h, w) by name, all that :meth:`coarse` needs."""
        raise NotImplementedError

    def coarse(self, maps: dict[str, Tensor]) -> Tensor:
        """Coarse logits (B, C, h, w) float32 from what :meth:`features` gave."""
        raise NotImplementedError

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[SemanticTarget],
        *,
        generator: Generators = None,
    ) -> Losses:
        """Training losses by name, scalars: "coarse" (interpolated coarse logits) and "points" (point head).

        Args:
            images: uint8 (3, h, w) RGB at the size to train on; smaller ones are padded.
            targets: labels (h, w) of the same sizes.
            generator: for a reproducible choice of points; one, or one for each image.
        """
        batch = batch_images(images, self.config.preprocessing, self.device)
        labels = batch_labels(batch, targets, self.config.num_classes)
        maps = self.features(batch.tensor)
        coarse = self.coarse(maps)
        normalize = self.config.loss_normalize
        losses = {"coarse": self.coarse_loss(coarse, labels)}
        counts = {"coarse": points_counted(labels != IGNORE_LABEL, normalize)}
        if self.point_rend is not None:
            counted: list[Tensor] = []
            losses["points"] = self.point_rend.loss(
                coarse,
                self._fine(maps),
                labels,
                ignore_label=IGNORE_LABEL,
                normalize=normalize,
                generator=generator,
                counted=counted,
            )
            counts["points"] = counted[0]
        return Losses(losses, counts)

    def coarse_loss(self, coarse: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the coarse logits (B, C, h, w), interpolated to the labels (B, H, W)."""
        upsampled = F.interpolate(coarse, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return multiclass_point_loss(
            upsampled, labels, ignore_label=IGNORE_LABEL, normalize=self.config.loss_normalize
        )

    @in_own_precision
    def logits(
        self,
        batch: ImageBatch,
        *,
        refine: bool = True,
        num_points: int | None = None,
        trace: list[SubdivisionStep] | None = None,
    ) -> Tensor:
        """Logits (B, C, H, W) float32 on the padded batch: refined, or (``refine=False``) interpolated coarse ones.

        Dense, where :meth:`grids` holds the same logits in less memory. ``trace`` receives every subdivision step.
        """
        self._check_memory(batch, grids=2)
        maps = self.features(batch.tensor)
        coarse = self.coarse(maps)
        if self.point_rend is None or not refine:
            return F.interpolate(coarse, size=batch.padded_size, mode="bilinear", align_corners=False)
        return self.refined(maps, coarse, batch.padded_size, num_points=num_points, trace=trace)

    @in_own_precision
    def refined(
        self,
        maps: dict[str, Tensor],
        coarse: Tensor,
        size: Size,
        *,
        num_points: int | None = None,
        trace: list[SubdivisionStep] | None = None,
    ) -> Tensor:
        """Logits (B, C, H, W) float32: coarse ones (B, C, h, w) with uncertain points predicted anew from the maps."""
        assert self.point_rend is not None
        logits = self.point_rend.refine(
            coarse,
            self._fine(maps),
            size,
            sizes=self._sizes(coarse, size),
            num_points=num_points,
            trace=trace,
        )
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits

    @torch.no_grad()
    @in_own_precision
    def grids(
        self,
        batch: ImageBatch,
        images: Sequence[Tensor] | None = None,
        *,
        refine: bool = True,
        num_points: int | None = None,
    ) -> list[LazyGrid]:
        """The logits (C, H, W) of each image in the padded batch, to be read in row chunks: never held at once.

        With the images that the batch was made of, the logits are those of each image in its own size.
        """
        self._check_memory(batch, grids=0)
        maps = self.features(batch.tensor)
        coarse = self.coarse(maps)
        grids: list[LazyGrid] = [DenseLogits(logits) for logits in coarse]
        if self.point_rend is not None and refine:
            grids = self.point_rend.render(
                coarse,
                self._fine(maps),
                batch.padded_size,
                sizes=self._sizes(coarse, batch.padded_size),
                num_points=num_points,
            )
        grids = [grid.resize(batch.padded_size) for grid in grids]
        if images is None:
            return grids
        grids = [grid.crop(size) for grid, size in zip(grids, batch.sizes, strict=True)]
        config = self.config.point_rend
        if refine and config is not None and config.full_resolution:
            grids = [
                self._continued(grid, number, image, batch, maps, coarse, num_points)
                for number, (grid, image) in enumerate(zip(grids, images, strict=True))
            ]
        return [
            grid.resize((image.shape[1], image.shape[2])) for grid, image in zip(grids, images, strict=True)
        ]

    def _continued(
        self,
        grid: LazyGrid,
        number: int,
        image: Tensor,
        batch: ImageBatch,
        maps: Mapping[str, Tensor],
        coarse: Tensor,
        num_points: int | None,
    ) -> LazyGrid:
        """The grid of an image in a batch, subdivided on to the image's size where that is larger."""
        assert self.point_rend is not None
        size, seen = (image.shape[1], image.shape[2]), batch.sizes[number]
        if size[0] <= seen[0] and size[1] <= seen[1]:
            return grid
        one = slice(number, number + 1)
        # Points are in the unit square of the image; maps cover the padding, too.
        padding = [padded / inside for padded, inside in zip(batch.padded_size, seen, strict=True)]
        covered = (size[0] * padding[0], size[1] * padding[1])
        features: dict[str, FeatureMap] = {name: level[one] for name, level in maps.items()}
        for name, (layer, stride) in self.layers_at_points.items():
            features[name] = LayerAtPoints(image, self.config.preprocessing, covered, layer, stride)
        predict_at = predict_in_images(self.point_rend.head, self._fine(features), coarse[one])
        inside = coarse.new_tensor([1 / padding[1], 1 / padding[0]], dtype=torch.float32)
        return continue_to_size(
            size,
            grid,
            lambda points: predict_at(points * inside),
            num_points=self.point_rend.num_points if num_points is None else num_points,
            min_uncertainty=self.point_rend.min_uncertainty,
        )

    @property
    def layers_at_points(self) -> dict[str, tuple[nn.Module | None, int]]:
        """The maps that can be computed from an image's own pixels at points, by name: layer and stride."""
        return {"image": (None, 1)}

    def _sizes(self, coarse: Tensor, size: Size) -> list[Size] | None:
        """The grids of the configured number of steps; None for doubling up to `size`, the image's."""
        steps = self.config.point_rend.subdivision_steps if self.config.point_rend else None
        if steps is None:
            return None
        rows, columns = coarse.shape[-2:]
        return [(rows * 2**step, columns * 2**step) for step in range(1, steps + 1)]

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[Tensor],
        *,
        refine: bool = True,
        num_points: int | None = None,
        uncertainty: bool = False,
        trace: list[SubdivisionStep] | None = None,
    ) -> list[SemanticResult]:
        """Label maps of images, each in its own size.

        Args:
            images: uint8 (3, H, W) RGB of any sizes; resized as ``config.preprocessing`` says. They share one batch,
                padded to the largest.
            refine: False gives the interpolated coarse prediction, for comparison.
            num_points: points in each subdivision step, instead of the configured number.
            uncertainty: also return 1 minus the margin of the two best probabilities.
            trace: a list that receives the subdivision steps of the batch, up to the network's own size.
        """
        if len(images) == 0:
            return []
        batch = prepare_images(images, self.config.preprocessing, self.device)
        if trace is None:
            grids = self.grids(batch, images, refine=refine, num_points=num_points)
            return self._results(grids, uncertainty)
        logits = self.logits(batch, refine=refine, num_points=num_points, trace=trace)
        return self.finish([DenseLogits(one) for one in logits], batch, images, uncertainty=uncertainty)

    def finish(
        self,
        grids: Sequence[LazyGrid],
        batch: ImageBatch,
        images: Sequence[Tensor],
        *,
        uncertainty: bool = False,
    ) -> list[SemanticResult]:
        """Label maps in the images' own sizes from the logits of the padded batch."""
        own = [
            grid.crop(size).resize((image.shape[1], image.shape[2]))
            for grid, image, size in zip(grids, images, batch.sizes, strict=True)
        ]
        return self._results(own, uncertainty)

    def _results(self, grids: Sequence[LazyGrid], uncertainty: bool) -> list[SemanticResult]:
        return [
            self.config.result(grid.label_map(), grid.label_uncertainty() if uncertainty else None)
            for grid in grids
        ]

    @property
    def _channels_per_pixel(self) -> float:
        """Of the feature maps that are alive with the logits; a lower bound."""
        return 0.0

    def _check_memory(self, batch: ImageBatch, *, grids: int) -> None:
        """So many grids of logits in the image's size and the finest features are alive at once: a lower bound."""
        if torch.compiler.is_compiling():
            return
        rows, columns = batch.padded_size
        needed = int(
            len(batch) * rows * columns * 4 * (grids * self.config.num_classes + self._channels_per_pixel)
        )
        require_memory(
            needed,
            batch.tensor.device,
            f"{len(batch)} x {self.config.num_classes} classes x {rows}x{columns} pixels",
            "set long_edge in the preprocessing, give fewer images at once, or cut the image into pieces",
        )

    def _fine(self, maps: Mapping[str, T]) -> list[T]:
        assert self.config.point_rend is not None
        return [maps[name] for name in self.config.point_rend.features]
