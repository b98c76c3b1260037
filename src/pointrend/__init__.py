"""PointRend: image segmentation as rendering (Kirillov, Wu, He, Girshick, CVPR 2020, arXiv 1912.08193).

What `__all__` lists is what the package promises; everything else may change between versions. Each
name is imported when it is first used, so that `import pointrend` costs nothing and a script that
needs `pointrend.core` alone never loads torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pointrend._version import __version__

if TYPE_CHECKING:
    from pointrend.checkpoints.detectron2 import from_detectron2
    from pointrend.checkpoints.native import save
    from pointrend.checkpoints.openmmlab import from_mmsegmentation
    from pointrend.core.gather import point_sample_boxes
    from pointrend.core.losses import binary_point_loss, multiclass_point_loss
    from pointrend.core.point_head import PointHead
    from pointrend.core.point_rend import PointRend
    from pointrend.core.sampling import point_sample, regular_grid
    from pointrend.core.selection import (
        PointSampling,
        binary_uncertainty,
        margin_uncertainty,
        sample_training_points,
    )
    from pointrend.core.subdivision import SubdivisionStep, subdivide, subdivision_sizes
    from pointrend.models.attached import AttachedConfig, AttachedSegmenter, attach
    from pointrend.models.instance import InstanceConfig, InstanceSegmenter
    from pointrend.models.semantic import SemanticConfig, SemanticSegmenter
    from pointrend.predict import Predictor
    from pointrend.predict.refine import refine_mask
    from pointrend.results import InstanceResult, SemanticResult
    from pointrend.zoo import load

# Public name -> module that defines it. The block above tells type checkers the same; a test compares the two.
_HOME = {
    "AttachedConfig": "pointrend.models.attached",
    "AttachedSegmenter": "pointrend.models.attached",
    "InstanceConfig": "pointrend.models.instance",
    "InstanceResult": "pointrend.results",
    "InstanceSegmenter": "pointrend.models.instance",
    "PointHead": "pointrend.core.point_head",
    "PointRend": "pointrend.core.point_rend",
    "PointSampling": "pointrend.core.selection",
    "Predictor": "pointrend.predict",
    "SemanticConfig": "pointrend.models.semantic",
    "SemanticResult": "pointrend.results",
    "SemanticSegmenter": "pointrend.models.semantic",
    "SubdivisionStep": "pointrend.core.subdivision",
    "attach": "pointrend.models.attached",
    "binary_point_loss": "pointrend.core.losses",
    "binary_uncertainty": "pointrend.core.selection",
    "from_detectron2": "pointrend.checkpoints.detectron2",
    "from_mmsegmentation": "pointrend.checkpoints.openmmlab",
    "load": "pointrend.zoo",
    "margin_uncertainty": "pointrend.core.selection",
    "multiclass_point_loss": "pointrend.core.losses",
    "point_sample": "pointrend.core.sampling",
    "point_sample_boxes": "pointrend.core.gather",
    "refine_mask": "pointrend.predict.refine",
    "regular_grid": "pointrend.core.sampling",
    "sample_training_points": "pointrend.core.selection",
    "save": "pointrend.checkpoints.native",
    "subdivide": "pointrend.core.subdivision",
    "subdivision_sizes": "pointrend.core.subdivision",
}

__all__ = [
    "AttachedConfig",
    "AttachedSegmenter",
    "InstanceConfig",
    "InstanceResult",
    "InstanceSegmenter",
    "PointHead",
    "PointRend",
    "PointSampling",
    "Predictor",
    "SemanticConfig",
    "SemanticResult",
    "SemanticSegmenter",
    "SubdivisionStep",
    "__version__",
    "attach",
    "binary_point_loss",
    "binary_uncertainty",
    "from_detectron2",
    "from_mmsegmentation",
    "load",
    "margin_uncertainty",
    "multiclass_point_loss",
    "point_sample",
    "point_sample_boxes",
    "refine_mask",
    "regular_grid",
    "sample_training_points",
    "save",
    "subdivide",
    "subdivision_sizes",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines `name` and hand the name over (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'pointrend' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
