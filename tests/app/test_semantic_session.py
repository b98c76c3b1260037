"""A semantic image at the sliders' settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pointrend.app.semantic_session import SemanticSession
from pointrend.app.types import Settings
from pointrend.core.subdivision import share_predicted
from pointrend.models.semantic import SemanticSegmenter
from pointrend.results import SemanticResult


def own(session: SemanticSession) -> Settings:
    return Settings(session.resolutions.own, session.points.own)


@pytest.mark.parametrize("size", [(90, 157), (144, 192), (33, 20), (1, 1), (400, 30)])
def test_the_models_own_settings_give_what_predict_gives(
    semantic: SemanticSegmenter, size: tuple[int, int]
) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    session = SemanticSession(semantic, image)
    rendering = session.render(own(session))
    expected = semantic.predict([image], uncertainty=True)[0]
    assert isinstance(rendering.result, SemanticResult)
    assert (
        rendering.result.labels == expected.labels
    ).float().mean() > 0.999  # the last bit of an interpolation
    assert expected.uncertainty is not None
    torch.testing.assert_close(rendering.uncertainty, expected.uncertainty, atol=1e-4, rtol=0)


def test_the_coarse_result_is_the_interpolated_coarse_prediction(semantic: SemanticSegmenter) -> None:
    image = torch.randint(0, 256, (3, 144, 192), dtype=torch.uint8)
    session = SemanticSession(semantic, image)
    expected = semantic.predict([image], refine=False)[0].labels
    coarse = session.render(own(session)).coarse
    assert isinstance(coarse, SemanticResult)
    # Two interpolations in a row against one: only where two classes are next to equal does that matter.
    assert (coarse.labels == expected).float().mean() > 0.97


@pytest.mark.parametrize("side", [24, 64, 192, 512])
def test_grid_and_share_follow_the_sliders(semantic: SemanticSegmenter, image: Tensor, side: int) -> None:
    session = SemanticSession(semantic, image)
    rendering = session.render(Settings(side, 64))
    assert rendering.grid == session.grid(side)
    assert rendering.steps[-1].size == rendering.grid
    sizes = [step.size for step in rendering.steps]
    assert rendering.share == pytest.approx(share_predicted(sizes, 64), abs=1e-3)
    assert rendering.result.labels.shape == image.shape[1:]


def test_points_lie_in_the_image_and_padding_is_left_out(semantic: SemanticSegmenter, image: Tensor) -> None:
    session = SemanticSession(semantic, image)
    rendering = session.render(Settings(64, session.points.maximum))
    height, width = image.shape[1:]
    first = rendering.steps[0]
    assert len(first.points) < first.size[0] * first.size[1]  # every cell was predicted, but some are padding
    for step in rendering.steps:
        assert bool((step.points >= 0).all())
        assert bool((step.points < torch.tensor([width, height])).all())
        assert len(step.points) == len(step.cells)


def test_numbers_out_of_range_are_moved_inside(semantic: SemanticSegmenter, image: Tensor) -> None:
    session = SemanticSession(semantic, image)
    rendering = session.render(Settings(10**9, -5))
    assert rendering.grid == session.grid(session.resolutions.maximum)
    assert len(rendering.steps[-1].points) <= session.points.minimum


def test_many_classes_end_the_resolution_earlier(semantic: SemanticSegmenter, image: Tensor) -> None:
    names = tuple(map(str, range(2000)))
    config = replace(semantic.config, class_names=names, palette=())
    assert SemanticSession(SemanticSegmenter(config).eval(), image).resolutions.maximum < 256


def test_a_fixed_number_of_doublings_is_the_models_own_resolution(
    semantic: SemanticSegmenter, image: Tensor
) -> None:
    assert semantic.config.point_rend is not None
    config = replace(semantic.config, point_rend=replace(semantic.config.point_rend, subdivision_steps=1))
    session = SemanticSession(SemanticSegmenter(config).eval(), image)
    assert session.resolutions.own == 2 * 192 // 8


def test_memory_is_that_of_the_tensors_that_are_kept(semantic: SemanticSegmenter, image: Tensor) -> None:
    session = SemanticSession(semantic, image)
    assert session.nbytes == image.numel() + 4 * (
        session.coarse.numel() + sum(m.numel() for m in session.maps)
    )
