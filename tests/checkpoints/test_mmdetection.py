"""MMDetection checkpoints load strictly by name. Its numbers are not checked: no stored outputs are at hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pointrend.checkpoints.key_mapping import reverse, translate
from pointrend.checkpoints.openmmlab import INSTANCE, from_mmdetection, infer_instance
from pointrend.core import subdivision_sizes
from pointrend.models.instance import InstanceSegmenter
from pointrend.zoo import ZOO

NAME = "point-rend_r50-caffe_fpn_ms-1x_coco"


@pytest.fixture(scope="module")
def theirs():
    """The published architecture under MMDetection's names, on the meta device: shapes alone."""
    with torch.device("meta"):
        state = InstanceSegmenter(ZOO[NAME].config()).state_dict()
    return {translate(name, reverse(INSTANCE)): tensor for name, tensor in state.items()}


def test_the_published_architecture_is_read_off_its_shapes(theirs):
    assert None not in theirs
    published = ZOO[NAME].config()
    assert infer_instance(theirs, {"CLASSES": list(published.class_names)}) == published
    assert infer_instance(theirs).class_names[:2] == ("class 0", "class 1")


def test_a_small_one_loads_exactly(tmp_path):
    published = ZOO[NAME].config()
    config = replace(
        published,
        class_names=("a", "b"),
        fpn_channels=8,
        boxes=replace(published.boxes, width=8),
        masks=replace(published.masks, width=8, coarse_width=8),
    )
    model = InstanceSegmenter(config)
    state = {translate(name, reverse(INSTANCE)): tensor for name, tensor in model.state_dict().items()}
    state["backbone.bn1.num_batches_tracked"] = torch.tensor(0)
    torch.save({"meta": {"CLASSES": ("a", "b")}, "state_dict": state}, tmp_path / "x.pth")
    loaded = from_mmdetection(tmp_path / "x.pth")
    assert loaded.config == config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_other_models_are_refused(theirs):
    with pytest.raises(ValueError, match="not a PointRend of MMDetection"):
        infer_instance({name: t for name, t in theirs.items() if "point_head" not in name})


def test_their_subdivision_from_7x7_predicts_points_on_the_same_grids():
    masks, theirs, side = ZOO[NAME].config().masks, [], 7
    for step in range(
        5
    ):  # the rule of PointRendRoIHead: double, and skip while the points cover twice the side
        side *= 2
        if step == 4 or masks.num_points < 4 * side**2:
            theirs.append((side, side))
    start = (masks.start_size, masks.start_size)
    assert theirs == [start, *subdivision_sizes(start, (masks.mask_size, masks.mask_size))]
    assert masks.num_points == start[0] * start[1]  # all cells of the first grid, so nothing of 14x14 remains


def test_the_background_is_last_and_deltas_go_class_by_class(theirs):
    assert theirs["roi_head.bbox_head.fc_cls.weight"].shape[0] == 80 + 1
    assert theirs["roi_head.bbox_head.fc_reg.weight"].shape[0] == 80 * 4
