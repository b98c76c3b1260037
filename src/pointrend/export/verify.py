"""Whether a file gives the model's own answers, at sizes that it was not traced with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.data.image_io import read_image
from pointrend.export.graphs import InstanceGraph, SemanticGraph
from pointrend.runtime.sessions import open_session
from pointrend.samples import SAMPLES

Size = tuple[int, int]
Graph = SemanticGraph | InstanceGraph
Arrays = list[np.ndarray]

CHECKED_SIZES: tuple[Size, ...] = ((160, 131), (96, 224))
"""Rows and columns: higher than wide, and wider."""


@dataclass(frozen=True)
class Tolerance:
    """How far a file's answers may be from the model's."""

    labels_equal: float = 0.999
    """Share of pixels; two classes may be level up to rounding."""
    box: float = 0.05
    """Pixels."""
    score: float = 1e-3
    logit: float = 0.05
    """At all but 1 - `labels_equal` of the cells; of masks, at 99 %."""


EXACT = Tolerance()
HALF = Tolerance(labels_equal=0.99, box=0.5, score=0.01, logit=0.25)
"""For weights rounded to 11 bits."""


def photograph(size: Size) -> Tensor:
    """A sample photograph at a size: uint8 (3, H, W)."""
    image = read_image(SAMPLES["cyclist"].image)[None].float()
    resized = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    return resized[0].round().to(torch.uint8)


@dataclass(frozen=True)
class Check:
    """ValueError, saying by how much, where a file does not give what the graph gives.

    Args:
        graph: the model.
        sizes: rows and columns of the images to compare at.
        tolerance: how near is near enough.
    """

    graph: Graph
    sizes: Sequence[Size]
    tolerance: Tolerance = EXACT

    def file(self, path: Path, suffix: str) -> None:
        """Of a file, run by its runtime."""
        session = open_session(path, suffix=suffix)
        self.run(
            lambda given: session.run({name: value.numpy() for name, value in given.items()}), session.inputs
        )

    def program(self, program: torch.export.ExportedProgram, inputs: Sequence[str]) -> None:
        """Of an exported program."""
        module = program.module()

        def run(given: dict[str, Tensor]) -> Arrays:
            found = module(*given.values())
            return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]

        self.run(run, inputs)

    @torch.no_grad()
    def run(self, run: Callable[[dict[str, Tensor]], Arrays], inputs: Sequence[str]) -> None:
        """Of a function from the inputs by name to the outputs."""
        images = [photograph(size) for size in self.sizes]
        for image in (*images, torch.zeros_like(images[-1])):  # black: nothing to find, as a rule
            size = (image.shape[1], image.shape[2])
            given = {"image": image}
            if "size" in inputs:
                given["size"] = torch.tensor([size[0] + 17, 2 * size[1]])
            expected = self.graph(*given.values())
            found = run(given)
            if isinstance(self.graph, SemanticGraph):
                wrong = difference_of_maps(expected.numpy(), found[0], self.tolerance)
            else:
                wrong = difference_of_objects([tensor.numpy() for tensor in expected], found, self.tolerance)
            if wrong:
                raise ValueError(f"export: at {size[0]}x{size[1]} pixels {wrong}; no file was kept")


def difference_of_maps(expected: np.ndarray, found: np.ndarray, tolerance: Tolerance = EXACT) -> str:
    """What is wrong with labels (H, W) or logits (C, H, W); empty if nothing is."""
    if expected.shape != found.shape:
        return f"the file gives {found.shape}, the model {expected.shape}"
    near = expected == found if expected.ndim == 2 else np.abs(expected - found) <= tolerance.logit
    if near.mean() < tolerance.labels_equal:
        return f"{1 - near.mean():.2%} of the file's answers differ from the model's"
    return ""


def difference_of_objects(expected: Arrays, found: Arrays, tolerance: Tolerance = EXACT) -> str:
    """What is wrong with boxes, labels, scores and masks; empty if nothing is.

    Objects may come in another order. A tenth of them, or one, may be others where their scores are level with the
    least one: rounding decides which of these are kept.
    """
    for one, other in ((expected, found), (found, expected)):
        least = min(one[2].min(initial=1), other[2].min(initial=1)) + tolerance.score
        alone = []
        for box, label, score, mask in zip(*one, strict=True):
            like = (other[1] == label) & (np.abs(other[2] - score) <= tolerance.score)
            like &= (np.abs(other[0] - box) <= tolerance.box).all(1)
            if like.any():
                near = np.abs(other[3][like] - mask) <= tolerance.logit
                if near.mean((1, 2)).max() < 0.99:
                    return f"the mask in box {box.round(1).tolist()} differs from the model's"
                continue
            alone.append(
                f"the box {box.round(1).tolist()} of class {label}, score {score:.3f}, is in one only"
            )
            if score > least or len(alone) > max(1, len(one[1]) // 10):
                return alone[0]
    return ""
