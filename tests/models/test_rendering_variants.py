"""Comparing ways to render masks: same objects, other outlines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.ground_truth import SampleList
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.rendering_variants import MaskVariants, mask_variants, semantic_variants
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import InstanceMasks, InstanceTarget, Sample, SemanticTarget
from tests.helpers import random_image

NAMES = ("disc", "square")


def detector(head: str = "pointrend", **masks: Any) -> InstanceSegmenter:
    torch.manual_seed(0)
    settings = {"width": 16, "coarse_width": 32, "mask_size": 56, "num_points": 196, **masks}
    config = InstanceConfig(
        NAMES,
        BackboneConfig("resnet18", "batch"),
        Preprocessing(short_edge=64, long_edge=128),
        mask_head=head,  # type: ignore[arg-type]
        fpn_channels=16,
        boxes=BoxHeadConfig(width=32, score_threshold=0.0, max_detections=5),
        masks=MaskConfig(**settings),
    )
    return InstanceSegmenter(config).eval()


def samples(count: int = 2) -> list[Sample]:
    masks = InstanceMasks.from_dense(torch.ones(1, 60, 80))
    target = InstanceTarget(torch.tensor([[0.0, 0, 80, 60]]), torch.tensor([0]), masks, torch.tensor([False]))
    return [Sample(random_image(60, 80, number), target, number) for number in range(count)]


def test_without_options_the_model_itself_answers() -> None:
    model = detector()
    ours, own = (
        MaskVariants(model).predict([random_image(60, 80)])[0],
        model.predict([random_image(60, 80)])[0],
    )
    assert torch.equal(ours.boxes, own.boxes)
    assert torch.equal(ours.scores, own.scores)
    assert torch.equal(ours.masks.dense(), own.masks.dense())


@pytest.mark.parametrize(("mask_size", "num_points"), [(28, 784), (112, 196), (33, 50)])
def test_a_side_and_a_number_of_points_act_as_if_configured(mask_size: int, num_points: int) -> None:
    model, other = detector(), detector(mask_size=mask_size, num_points=num_points)
    ours = MaskVariants(model).predict([random_image(60, 80)], mask_size=mask_size, num_points=num_points)[0]
    assert torch.equal(ours.masks.dense(), other.predict([random_image(60, 80)])[0].masks.dense())
    assert model.mask_head.config.mask_size == 56  # as it was


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_coarse_masks_are_those_of_the_coarse_head(class_agnostic: bool) -> None:
    model = detector(class_agnostic=class_agnostic)
    coarse = detector("coarse", class_agnostic=class_agnostic)
    coarse.load_state_dict(
        {
            key: value
            for key, value in model.state_dict().items()
            if not key.startswith("mask_head.point_head")
        }
    )
    ours, own = (
        MaskVariants(model).predict([random_image(60, 80)], refine=False)[0],
        coarse.predict([random_image(60, 80)])[0],
    )
    assert len(own) > 0
    assert torch.equal(ours.masks.dense(), own.masks.dense())


def test_variants_share_boxes_and_are_scored_in_one_run() -> None:
    rows = evaluate_instances(MaskVariants(detector()), samples(), mask_variants((14, 28)))
    assert [row.name for row in rows] == ["coarse", "14 x 14", "28 x 28"]
    assert len({row.numbers["box AP"] for row in rows}) == 1


def test_resolutions_and_numbers_of_points_are_crossed() -> None:
    variants = mask_variants((28, 56), (49, 196))
    assert list(variants) == [
        "coarse",
        *("28 x 28, N = 49", "28 x 28, N = 196", "56 x 56, N = 49", "56 x 56, N = 196"),
    ]
    assert variants["56 x 56, N = 49"] == {"mask_size": 56, "num_points": 49}
    assert mask_variants((), (49,)) == {"coarse": {"refine": False}, "N = 49": {"num_points": 49}}
    assert mask_variants(()) == {"coarse": {"refine": False}, "refined": {}}


def test_a_head_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="a point head, got the mask head 'coarse'"):
        MaskVariants(detector("coarse"))


def test_the_model_goes_into_evaluation_mode_and_back() -> None:
    model = detector().train()
    evaluate_instances(MaskVariants(model), samples(1), mask_variants((14,)), metrics=("box",))
    assert model.training


def test_semantic_models_are_compared_by_points() -> None:
    torch.manual_seed(0)
    config = SemanticConfig(
        NAMES,
        backbone=BackboneConfig("resnet18", "batch"),
        fpn_channels=16,
        decoder_channels=16,
        point_rend=SemanticPointRendConfig(width=16),
    )
    labels = torch.zeros(60, 80, dtype=torch.uint8)
    labels[20:40, 20:50] = 1
    data = [Sample(random_image(60, 80), SemanticTarget(labels), 0)]
    rows = evaluate_semantic(SemanticSegmenter(config), data, semantic_variants((16, 4800)))
    assert [row.name for row in rows] == ["coarse", "N = 16", "N = 4800"]
    assert all(0 <= row.numbers["mIoU"] <= 1 for row in rows)


def test_a_data_set_that_knows_its_own_ground_truth_is_scored_by_it() -> None:
    class Annotated(SampleList):
        category_ids = (7, 9)

        def as_coco(self) -> dict[str, Any]:
            images = [{"id": sample.image_id, "height": 60, "width": 80} for sample in self.samples]
            categories = [{"id": 7, "name": "a"}, {"id": 9, "name": "b"}]
            return {"images": images, "annotations": [], "categories": categories}

    row = evaluate_instances(detector(), Annotated(samples()), {"model": {}}, metrics=("box",))[0]
    assert row.class_names == ("a", "b")
    assert row.numbers["box AP"] != row.numbers["box AP"]  # NaN: it says that there are no objects
