"""`pointrend export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pointrend.cli.console import announce

TENSORRT_LIMIT = 3840
"""Largest K of TensorRT's TopK layer."""


@dataclass(frozen=True)
class Export:
    """Write a model as ONNX, OpenVINO or torch.export file, to be run without torch.

    The file is compared with the model at sizes that it was not traced with, and kept only if it gives the same.
    `pointrend predict --model FILE.onnx`, `pointrend eval` and `pointrend.runtime.load` read it; docs/deploy.md is
    about programs in other languages.
    """

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """A checkpoint, or a name listed by `pointrend zoo`."""
    to: Path = Path("model.onnx")
    """The file: .onnx, .xml (OpenVINO) or .pt2 (torch.export)."""
    size: str = "dynamic"
    """Of images as the network sees them: any ("dynamic"), or HEIGHTxWIDTH, such as 512x512."""
    points: int | None = None
    """Semantic models: points in each subdivision step, instead of the model's own number."""
    logits: bool = False
    """Give logits of the network's size instead of labels, or mask logits instead of probabilities."""
    half: bool = False
    """Weights as float16 (FP16; ONNX, OpenVINO): half the file, used as float32 all the same."""
    int8: tuple[Path, ...] = ()
    """Images, or one folder of them, to calibrate 8-bit integers by (OpenVINO): a hundred or more like those to come.
    Score the file by `pointrend eval` before and after."""

    def run(self) -> int:
        """Export."""
        size = _size(self.size)
        announce(f"loading {self.model}")
        from pointrend.cli.console import load_model
        from pointrend.export import export
        from pointrend.predict.inputs import find_images

        images = find_images([str(path) for path in self.int8])[0] if self.int8 else []
        if self.int8 and not images:
            raise ValueError(f"int8: no images found in {', '.join(map(str, self.int8))}")
        model = load_model(self.model)
        announce("tracing, translating and comparing; a minute or more")
        path = export(
            model,
            self.to,
            size=size,
            num_points=self.points,
            logits=self.logits,
            half=self.half,
            int8=[str(i) for i in images],
        )
        parts = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
        megabytes = sum(part.stat().st_size for part in parts) / 1e6
        compared = "gives what the model gives" + (
            ", within the rounding of its weights" if self.half else ""
        )
        if images:
            compared = "not compared with the model: score it by `pointrend eval`"
        points = getattr(model.config, "point_rend", None)  # of semantic models
        if points is not None and points.full_resolution:
            print(
                "of images that the network sees shrunk, the file interpolates labels, where `predict` refines them"
            )
        if (
            points is not None
            and (self.points or points.num_points) > TENSORRT_LIMIT
            and path.suffix == ".onnx"
        ):
            print(
                f"TensorRT's TopK takes at most {TENSORRT_LIMIT} values: for it, --points {TENSORRT_LIMIT} --size HxW"
            )
        print(f"{path}: {megabytes:.1f} MB, {compared}")
        return 0


def _size(text: str) -> tuple[int, int] | None:
    """Rows and columns of "512x640", None for "dynamic"."""
    if text == "dynamic":
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise ValueError(f"size: expected dynamic or HEIGHTxWIDTH such as 512x512, got {text!r}")
    return int(sides[0]), int(sides[1])
