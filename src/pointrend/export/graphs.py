"""What is exported: a model's own `forward` steps for one image, from its pixels to labels or boxes and masks.

Shapes: H W rows and columns of the image as the network sees it, D detections, S side of a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.models.base import Pretrained
from pointrend.models.inputs import batch_images
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.optimize import fold_norms, structure_copy
from pointrend.models.semantic_model import SemanticModel


class SemanticGraph(nn.Module):
    """uint8 (3, H, W) RGB, and where it was resized the size of the answer (2,) int64 -> labels of that size.

    Args:
        model: a semantic model.
        logits: give logits (C, H, W) float32 of the network's size instead of labels.
        num_points: points in each subdivision step, instead of the model's own number.
    """

    outputs: tuple[str, ...]

    def __init__(self, model: SemanticModel, *, logits: bool = False, num_points: int | None = None) -> None:
        super().__init__()
        self.model, self.num_points, self.gives_logits = model, num_points, logits
        self.outputs = ("logits",) if logits else ("labels",)

    def forward(self, image: Tensor, size: Tensor | None = None) -> Tensor:
        config = self.model.config
        batch = batch_images([image], config.preprocessing)
        rows, columns = batch.sizes[0]
        logits = self.model.logits(batch, num_points=self.num_points)[..., :rows, :columns]
        if self.gives_logits:
            return logits[0]
        if size is not None:
            height, width = size.tolist()
            for side in (height, width):
                torch._check(side >= 1)
                torch._check(side < 2**15)
            logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        dtype = torch.uint8 if config.num_classes <= 255 else torch.int32
        return logits[0].argmax(0).to(dtype)


class InstanceGraph(nn.Module):
    """uint8 (3, H, W) RGB -> boxes (D, 4) in its pixels, labels (D,) int64, scores (D,) and masks (D, S, S) over boxes.

    Args:
        model: an instance model.
        logits: give mask logits instead of probabilities.
    """

    def __init__(self, model: InstanceSegmenter, *, logits: bool = False) -> None:
        super().__init__()
        self.model, self.gives_logits = model, logits
        self.outputs = ("boxes", "labels", "scores", "masks")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        model = self.model
        batch = batch_images([image], model.config.preprocessing)
        features = model.features(batch)
        proposals = model.propose(features, batch)
        (found,) = model.detect(features, proposals, batch)
        (masks,) = model.masks_for_boxes(features, [found.boxes], [found.labels])
        return found.boxes, found.labels, found.scores, masks if self.gives_logits else masks.sigmoid()


def build_graph(model: object, *, logits: bool, num_points: int | None) -> SemanticGraph | InstanceGraph:
    """The graph of a model in evaluation mode, batch norms folded; the model stays as it is.

    Raises:
        ValueError: points of an instance model, whose number is part of its configuration; half precision; an exported
            file.
    """
    if not isinstance(model, Pretrained):
        raise ValueError(
            f"export: expected a model in torch, got {type(model).__name__}; name the checkpoint"
        )
    if model.precision is not None:
        raise ValueError("export: expected a float32 model; export the one that optimize() was called on")
    lean = structure_copy(model).eval()
    fold_norms(lean)
    for parameter in lean.parameters():
        parameter.requires_grad_(False)
    if isinstance(lean, SemanticModel):
        return SemanticGraph(lean, logits=logits, num_points=num_points)
    if num_points is not None:
        raise ValueError("points: expected a semantic model; those of masks are in the model's configuration")
    assert isinstance(lean, InstanceSegmenter)
    return InstanceGraph(lean, logits=logits)
