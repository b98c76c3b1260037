"""Small models with random weights, and scenes to show them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend.app.instance_session import InstanceSession
from pointrend.app.semantic_session import SemanticSession
from pointrend.app.types import Rendering, Settings
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.semantic import SemanticSegmenter
from tests.helpers import random_image
from tools.train_demo_models import instance_config, semantic_config


@pytest.fixture(scope="session")
def semantic() -> SemanticSegmenter:
    torch.manual_seed(0)
    model = SemanticSegmenter(semantic_config()).eval()
    assert model.point_rend is not None
    torch.nn.init.normal_(
        model.point_rend.head.predictor.weight, std=0.1
    )  # a new residual head changes nothing
    return model


@pytest.fixture(scope="session")
def instances() -> InstanceSegmenter:
    torch.manual_seed(0)
    model = InstanceSegmenter(instance_config()).eval()
    torch.nn.init.normal_(model.box_head.classes.weight, std=0.1)  # some boxes score
    torch.nn.init.normal_(model.mask_head.coarse_head.prediction.weight, std=0.1)
    return model


@pytest.fixture(scope="session")
def image() -> Tensor:
    """Of another shape than the networks were made for, so that it is resized and padded."""
    return random_image(90, 157, seed=1)


@pytest.fixture(scope="module")
def labels(semantic: SemanticSegmenter, image: Tensor) -> Rendering:
    return SemanticSession(semantic, image).render(Settings(64, 64))


@pytest.fixture(scope="module")
def objects(instances: InstanceSegmenter, image: Tensor) -> Rendering:
    return InstanceSession(instances, image).render(Settings(28, 98, 0.0))
