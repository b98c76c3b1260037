"""Figures onto the disk: PNG and SVG, whole or not at all, the same bytes for the same figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from pointrend.whole import whole_file

FORMATS = ("png", "svg")


def save_figure(figure: Figure, path: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write `path` with each format's suffix in place of its own; returns the files. Folders are made.

    Grids and pictures stay in their own cells and pixels in SVG, so that it can be magnified.
    """
    files = [Path(path).with_suffix(f".{kind}") for kind in formats]
    for file, kind in zip(files, formats, strict=True):
        # A fixed salt and no date: figures that are kept under version control change when their content does.
        with rc_context({"svg.hashsalt": "pointrend"}), whole_file(file) as unfinished:
            figure.savefig(
                unfinished, format=kind, dpi=figure.dpi, metadata={"Date": None} if kind == "svg" else None
            )
    return files
