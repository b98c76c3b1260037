"""Whether a file gives the model's own answers, at sizes that it was not traced with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pointrend.data.image_io import read_image
from pointrend.export.graphs import InstanceGraph, SemanticGraph
from pointrend.runtime.sessions import open_session
from pointrend.samples import SAMPLES

Size = tuple[int, int]
Graph = SemanticGraph | InstanceGraph
Arrays = list[NDArray[Any]]

CHECKED_SIZES: tuple[Size, ...] = ((160, 131), (96, 224))
"""Rows and columns: higher than wide, and wider."""
LABELS_EQUAL = 0.999
"""Share of pixels; two classes may be level up to rounding."""
BOX, SCORE, LOGIT = 0.05, 1e-3, 0.05
"""Pixels, probability, and logits at all but LABELS_EQUAL of the cells."""


def photograph(size: Size) -> Tensor:
    """A sample photograph at a size: uint8 (3, H, W)."""
    image = read_image(SAMPLES["cyclist"].image)[None].float()
    resized = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    return resized[0].round().to(torch.uint8)


def check_file(path: Path, suffix: str, graph: Graph, sizes: Sequence[Size]) -> None:
    """Run a file by its runtime; ValueError where it does not give what the graph gives."""
    session = open_session(path, suffix=suffix)

    def run(inputs: dict[str, Tensor]) -> Arrays:
        return session.run({name: value.numpy() for name, value in inputs.items()})

    check(run, graph, sizes, session.inputs)


def check_program(
    program: torch.export.ExportedProgram, graph: Graph, sizes: Sequence[Size], inputs: Sequence[str]
) -> None:
    """The same of an exported program."""
    module = program.module()

    def run(inputs: dict[str, Tensor]) -> Arrays:
        found = module(*inputs.values())
        return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]

    check(run, graph, sizes, inputs)


@torch.no_grad()
def check(
    run: Callable[[dict[str, Tensor]], Arrays], graph: Graph, sizes: Sequence[Size], inputs: Sequence[str]
) -> None:
    """ValueError, saying by how much, where `run` does not give the graph's own answers."""
    images = [photograph(size) for size in sizes]
    for image in (*images, torch.zeros_like(images[-1])):  # black: nothing to find, as a rule
        size = (image.shape[1], image.shape[2])
        given = {"image": image}
        if "size" in inputs:
            given["size"] = torch.tensor([size[0] + 17, 2 * size[1]])
        expected = graph(*given.values())
        found = run(given)
        if isinstance(graph, SemanticGraph):
            wrong = difference_of_maps(expected.numpy(), found[0])
        else:
            wrong = difference_of_objects([tensor.numpy() for tensor in expected], found)
        if wrong:
            raise ValueError(f"export: at {size[0]}x{size[1]} pixels {wrong}; no file was kept")


def difference_of_maps(expected: NDArray[Any], found: NDArray[Any]) -> str:
    """What is wrong with labels (H, W) or logits (C, H, W); empty if nothing is."""
    if expected.shape != found.shape:
        return f"the file gives {found.shape}, the model {expected.shape}"
    near = expected == found if expected.ndim == 2 else np.abs(expected - found) <= LOGIT
    if near.mean() < LABELS_EQUAL:
        return f"{1 - near.mean():.2%} of the file's answers differ from the model's"
    return ""


def difference_of_objects(expected: Arrays, found: Arrays) -> str:
    """What is wrong with boxes, labels, scores and masks; empty if nothing is.

    Objects may come in another order. A tenth of them, or one, may be others where their scores are level with the
    least one: rounding decides which of these are kept.
    """
    for one, other in ((expected, found), (found, expected)):
        least = min(one[2].min(initial=1), other[2].min(initial=1)) + SCORE
        alone = []
        for box, label, score, mask in zip(*one, strict=True):
            like = (other[1] == label) & (np.abs(other[2] - score) <= SCORE)
            like &= (np.abs(other[0] - box) <= BOX).all(1)
            if like.any():
                near = np.abs(other[3][like] - mask) <= LOGIT
                if near.mean((1, 2)).max() < 0.99:
                    return f"the mask in box {box.round(1).tolist()} differs from the model's"
                continue
            alone.append(
                f"the box {box.round(1).tolist()} of class {label}, score {score:.3f}, is in one only"
            )
            if score > least or len(alone) > max(1, len(one[1]) // 10):
                return alone[0]
    return ""
