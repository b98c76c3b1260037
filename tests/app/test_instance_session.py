"""Objects of an image at the sliders' settings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend.app.instance_session import InstanceSession, head_at
from pointrend.app.types import Settings
from pointrend.models.instance import InstanceSegmenter
from pointrend.results import InstanceResult


@pytest.fixture(scope="module")
def session(instances: InstanceSegmenter, image: Tensor) -> InstanceSession:
    found = InstanceSession(instances, image)
    assert len(found.found.scores) > 10  # two chunks of boxes, and objects that overlap
    return found


def test_the_models_own_settings_give_what_predict_gives(
    session: InstanceSession, instances: InstanceSegmenter, image: Tensor
) -> None:
    rendering = session.render(Settings(session.resolutions.own, session.points.own, 0.0))
    (expected,) = instances.predict([image])
    assert isinstance(rendering.result, InstanceResult)
    assert torch.equal(rendering.result.boxes, expected.boxes)
    agree = rendering.result.masks.dense() == expected.masks.dense()
    assert agree.float().mean() > 0.9999  # the fast path of predict differs in the last bit


def test_objects_with_a_lower_score_are_left_out(session: InstanceSession) -> None:
    scores = session.found.scores
    threshold = float(scores[4])
    rendering = session.render(Settings(28, 49, threshold))
    assert rendering.regions == int((scores >= threshold).sum()) == len(rendering.result)


def test_an_image_without_objects_is_no_error(session: InstanceSession) -> None:
    rendering = session.render(Settings(56, 98, 1.1))
    assert (rendering.regions, rendering.share, list(rendering.steps)) == (0, 0.0, [])
    assert len(rendering.result) == len(rendering.coarse) == 0
    assert not rendering.uncertainty.any()


@pytest.mark.parametrize(
    ("side", "points", "expected"),
    [(224, 784, (784 + 3 * 784) / 224**2), (28, 784, 1.0), (14, 49, (49 + 49) / 14**2), (7, 49, 1.0)],
)
def test_the_share_counts_the_starting_grid_too(
    session: InstanceSession, side: int, points: int, expected: float
) -> None:
    rendering = session.render(Settings(side, points, 0.0))
    assert rendering.grid == (side, side)
    assert rendering.share == pytest.approx(expected)


def test_points_of_all_boxes_lie_in_their_boxes(session: InstanceSession, image: Tensor) -> None:
    rendering = session.render(Settings(56, 98, 0.0))
    boxes = rendering.result.boxes
    assert [step.size for step in rendering.steps] == [(14, 14), (28, 28), (56, 56)]
    for step in rendering.steps:
        assert len(step.points) == len(step.cells) == rendering.regions * min(98, step.size[0] ** 2)
        low, high = boxes[:, :2].amin(0) - 1e-3, boxes[:, 2:].amax(0) + 1e-3
        assert bool(((step.points >= low) & (step.points <= high)).all())


def test_another_resolution_leaves_the_model_as_it_was(session: InstanceSession) -> None:
    before = session.head.config
    other = head_at(session.head, 49, 196)
    assert (other.config.mask_size, other.config.num_points) == (49, 196)
    assert session.head.config is before
    assert other.point_head is session.head.point_head


def test_uncertainty_is_one_at_most_and_zero_outside_of_boxes(session: InstanceSession) -> None:
    rendering = session.render(Settings(28, 784, float(session.found.scores[0])))
    assert 0 < float(rendering.uncertainty.max()) <= 1
    x1, y1, x2, y2 = rendering.result.boxes[0].round().int().tolist()
    outside = rendering.uncertainty.clone()
    outside[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = 0
    assert not outside.any()
