"""What the training benchmarks share: scores by way of predicting, printed progress, and the file a run leaves."""

from __future__ import annotations

import json
import os
import platform
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch

from pointrend.evaluation.semantic_metrics import BoundaryIoU, MeanIoU, TrimapIoU


class SemanticScores:
    """mIoU, boundary IoU and trimap mIoU of several ways of predicting the same images."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.metrics: dict[str, list[MeanIoU | BoundaryIoU | TrimapIoU]] = {}

    def update(self, predictions: dict[str, torch.Tensor], truth: torch.Tensor) -> None:
        """Count one image: logits (1, C, H, W) by way, at least as large as ``truth`` (h, w)."""
        rows, columns = truth.shape
        for way, logits in predictions.items():
            fresh = [MeanIoU(self.classes), BoundaryIoU(self.classes), TrimapIoU(self.classes)]
            labels = logits[0, :, :rows, :columns].argmax(0)
            for metric in self.metrics.setdefault(way, fresh):
                metric.update(labels, truth)

    def percent(self) -> dict[str, dict[str, float]]:
        return {
            way: {name: round(100 * value, 3) for metric in found for name, value in metric.compute().items()}
            for way, found in self.metrics.items()
        }


def training_parser(
    text: str, *, data: str, steps: int, batch: int, lr: float, threads: int = 1
) -> ArgumentParser:
    """Options that every training has, with these defaults; ``text`` is the docstring of the script, ``data`` says what
    the folder holds.
    """
    parser = ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {data}")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def print_progress(step: int, entry: dict[str, float]) -> None:
    if step % 20 == 0:
        print(step, {name: round(value, 4) for name, value in entry.items()}, flush=True)


def write_result(scores: dict[str, dict[str, float]], seconds: float, arguments: Namespace) -> None:
    """Print the scores and write them to scores.json in ``arguments.out``, with how they were made."""
    result = {
        "scores": scores,
        "minutes": round(seconds / 60, 1),
        "arguments": {key: str(value) for key, value in vars(arguments).items()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    out: Path = arguments.out
    (out / "scores.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
