"""Points left out at inference: fewer of them, where asked for, and nearly the same masks."""

from __future__ import annotations

import pytest
import torch

from pointrend.core import PointRend
from pointrend.core.selection import uncertain_cells
from pointrend.core.subdivision import SubdivisionStep
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.mask_heads.pointrend import AdaptiveRefinement, PointRendMaskHead

BOXES = torch.tensor([[0.0, 0, 6, 6], [4, 4, 44, 20], [0, 0, 100, 90], [3, 3, 17, 17], [5, 5, 5, 5]])


@pytest.fixture
def head():
    config = MaskConfig(mask_size=56, coarse_size=7, num_points=49, width=8, coarse_width=16)
    made = PointRendMaskHead({"p2": 8}, {"p2": 4}, 3, config).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture
def scene():
    return {"p2": torch.randn(1, 8, 32, 32)}, Regions.from_lists([BOXES], [torch.tensor([0, 1, 2, 0, 1])])


@pytest.mark.parametrize("fast", [True, False])
def test_boxes_stop_at_the_grid_that_their_pixels_fill(head, scene, fast) -> None:
    features, regions = scene
    head.point_head.fast = fast
    full = head.predict(features, regions)
    head.adaptive_refinement = AdaptiveRefinement(cells_per_pixel=1)
    economical = head.predict(features, regions)
    assert head.adaptive_refinement.steps(BOXES, 7, [(14, 14), (28, 28), (56, 56)]).tolist() == [
        0,
        3,
        3,
        1,
        0,
    ]
    assert economical.shape == full.shape
    torch.testing.assert_close(economical[1:3], full[1:3], atol=1e-4, rtol=1e-4)
    for small, steps in ((0, 0), (3, 1)):
        grid = head.render(features, regions[torch.tensor([small])], head.sizes[:steps])[:, None]
        wide = torch.nn.functional.interpolate(grid, size=56, mode="bilinear")[0]
        torch.testing.assert_close(economical[small], wide[0], atol=1e-4, rtol=1e-4)


def test_an_adaptive_refinement_that_spares_nothing_changes_nothing(head, scene) -> None:
    features, regions = scene[0], scene[1][torch.arange(4)]  # not the box without area
    full = head.predict(features, regions)
    head.adaptive_refinement = AdaptiveRefinement(cells_per_pixel=1e9, min_uncertainty=-1e9)
    torch.testing.assert_close(head.predict(features, regions), full)
    assert head.predict(features, regions[torch.zeros(0, dtype=torch.int64)]).shape == (0, 56, 56)


def test_only_doubtful_cells_are_chosen_as_many_as_the_region_with_most_has() -> None:
    uncertainty = -torch.tensor([[[0.1, 5, 9], [0.2, 0.3, 7]], [[8, 7, 0.5], [6, 5, 4]]])
    chosen = uncertain_cells(uncertainty, 4, -1.0)
    assert chosen.shape == (2, 3)
    assert set(chosen[0].tolist()) == {0, 3, 4}
    assert 2 in chosen[1].tolist()
    assert uncertain_cells(uncertainty, 4, -0.01).shape == (2, 0)
    assert uncertain_cells(uncertainty[:0], 4, -1.0).shape == (0, 0)


@pytest.mark.parametrize("min_uncertainty", [-1e-9, -0.5, -1e9])
def test_sure_cells_are_left_alone_either_way(min_uncertainty: float) -> None:
    module = PointRend(4, 3, width=8, residual=False, num_points=60).double()
    torch.nn.init.normal_(module.head.predictor.weight)
    coarse, level = torch.randn(1, 3, 5, 6).double(), torch.randn(1, 4, 10, 12).double()
    module.min_uncertainty = min_uncertainty
    trace: list[SubdivisionStep] = []
    refined = module.refine(coarse, level, (20, 24), trace=trace)
    margins = trace[-1].upsampled.topk(2, dim=1).values
    margins = (margins[:, 0] - margins[:, 1]).flatten(1)
    assert trace[-1].index.shape[1] == min(60, int((margins < -min_uncertainty).sum()))
    grid = module.render(coarse, level, (20, 24))[0]
    torch.testing.assert_close(grid.rows(0, 20), refined[0], atol=1e-9, rtol=1e-9)
    assert torch.equal(grid.label_map().long(), refined[0].argmax(0))


@pytest.mark.parametrize("options", [{"min_uncertainty": 0}, {"cells_per_pixel": -1.0}])
def test_settings_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"(positive|negative) number or None"):
        AdaptiveRefinement(**options)
