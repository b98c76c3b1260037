"""Scores as curves."""

from __future__ import annotations

import io
import math

import pytest

from pointrend.evaluation.report import Scores
from pointrend.visualize import plot_scores


def test_every_curve_has_a_panel_and_every_row_a_line() -> None:
    rows = [
        Scores("coarse", {}, curves={"mask AP by size": [(8, 0.1), (24, math.nan), (48, 0.4)]}),
        Scores("refined", {}, curves={"mask AP by size": [(8, 0.2)], "mIoU by width": [(1, 0.5)]}),
    ]
    figure = plot_scores(rows)
    figure.savefig(io.BytesIO(), format="png")
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("mask AP by size", "mIoU by width")
    assert [line.get_label() for line in first.lines] == ["coarse", "refined"]
    assert first.lines[0].get_xydata().tolist() == [[8, 10], [48, 40]]
    assert len(second.lines) == 1


def test_a_curve_without_any_value_is_an_empty_panel() -> None:
    figure = plot_scores([Scores("a", {}, curves={"mask AP by size": [(8, math.nan)]})])
    figure.savefig(io.BytesIO(), format="png")
    assert not figure.axes[0].lines


def test_scores_without_curves_are_refused() -> None:
    with pytest.raises(ValueError, match="expected scores with curves"):
        plot_scores([Scores("a", {"mIoU": 0.5})])
