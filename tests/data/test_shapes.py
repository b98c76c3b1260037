from __future__ import annotations

import numpy as np
import pytest
import torch

from pointrend.data.shapes import Scene, ShapeScenes
from pointrend.structures import InstanceTarget


def test_a_scene_is_decided_by_its_seed_and_number() -> None:
    for task in ("semantic", "instance"):
        one, two = ShapeScenes(3, task)[2], ShapeScenes(9, task, first=1)[1]
        assert torch.equal(one.image, two.image)
        assert one.image_id == two.image_id == 2
    assert not torch.equal(ShapeScenes(3)[2].image, ShapeScenes(3)[1].image)
    assert not torch.equal(ShapeScenes(3)[2].image, ShapeScenes(3, seed=1)[2].image)


def test_drawing_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    ShapeScenes(1)[0]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 71), (128, 96)])
def test_any_size_is_rendered(size: tuple[int, int]) -> None:
    for index in range(4):
        sample = ShapeScenes(4, size=size)[index]
        assert sample.image.shape == (3, *size)
        assert sample.image.dtype == torch.uint8
        assert sample.target.labels.shape == size
        assert ShapeScenes(4, "instance", size=size)[index].target.masks.image_size == size


def test_labels_at_a_multiple_agree_at_the_shared_centres() -> None:
    scene = Scene(4, height=60, width=80)
    # Cell centres of a 3x grid include those of the scene's own pixels: every third, from the second.
    assert np.array_equal(scene.labels_at(180, 240)[1::3, 1::3], scene.labels)
    assert scene.labels_at(7, 90).shape == (7, 90)


def test_finer_labels_resolve_the_same_shapes() -> None:
    scene = Scene(1, height=64, width=64)
    coarse, fine = scene.labels, scene.labels_at(512, 512)
    for label in np.unique(coarse):
        assert (fine == label).mean() == pytest.approx((coarse == label).mean(), abs=0.01)


def test_all_classes_occur_and_none_dominates() -> None:
    labels = np.stack([Scene(index, height=96, width=96).labels for index in range(60)])
    share = np.bincount(labels.ravel(), minlength=6) / labels.size
    assert (share > 0.01).all()
    assert 0.5 < share[0] < 0.9


def test_instances_are_the_visible_parts_of_the_semantic_image() -> None:
    for index in range(6):
        scene = ShapeScenes(6, "instance", size=(90, 120), min_area=1)
        target = scene[index].target
        assert isinstance(target, InstanceTarget)
        painted = np.zeros((90, 120), dtype=np.uint8)
        dense = target.masks.dense()
        assert int(dense.sum(0).max()) == 1  # no pixel belongs to two
        for mask, label in zip(dense, target.labels, strict=True):
            painted[mask.numpy()] = 1 + int(label)
        assert np.array_equal(painted, scene.scene(index).labels)


def test_boxes_are_tight_and_specks_are_left_out() -> None:
    dataset = ShapeScenes(12, "instance", size=(90, 120), min_area=40)
    targets = [dataset[index].target for index in range(12)]
    assert sum(len(target) for target in targets) > 12
    for target in targets:
        assert not target.crowd.any()
        for mask, box in zip(target.masks.dense(), target.boxes, strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            assert mask.sum() >= 40
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(v) for v in tight]


def test_an_empty_scene_has_an_empty_target() -> None:
    sample = ShapeScenes(1, "instance", objects=(0, 0))[0]
    assert len(sample.target.masks) == 0
    assert sample.target.boxes.shape == (0, 4)
    assert ShapeScenes(1, objects=(0, 0))[0].target.labels.max() == 0


def test_colour_alone_does_not_give_the_boundary_but_edges_are_visible() -> None:
    """A threshold on the best single grey or colour channel stays far from the object mask."""
    worst = []
    for index in range(20):
        scene = Scene(index, height=96, width=96)
        mask = scene.labels > 0
        best = 0.0
        for channel in scene.image.transpose(2, 0, 1):
            for threshold in range(20, 240, 10):
                for guess in (channel > threshold, channel <= threshold):
                    best = max(best, (guess & mask).sum() / max((guess | mask).sum(), 1))
        worst.append(best)
    assert np.mean(worst) < 0.65


def test_classes_and_colours_match_the_task() -> None:
    assert ShapeScenes(1).class_names == ("background", "ellipse", "polygon", "star", "ring", "bar")
    assert ShapeScenes(1, "instance").class_names == ("ellipse", "polygon", "star", "ring", "bar")
    for task in ("semantic", "instance"):
        assert len(ShapeScenes(1, task).palette) == len(ShapeScenes(1, task).class_names)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one scene"):
        ShapeScenes(0)
    with pytest.raises(ValueError, match='expected "semantic" or "instance", got \'panoptic\''):
        ShapeScenes(1, "panoptic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1x1"):
        Scene(0, height=0)
    with pytest.raises(ValueError, match="least <= most"):
        Scene(0, objects=(5, 2))
    with pytest.raises(ValueError, match="at least 1x1 cells"):
        Scene(0).labels_at(0, 4)
    with pytest.raises(IndexError):
        ShapeScenes(2)[2]


def test_patterned_scenes_have_a_class_for_each_kind_and_pattern() -> None:
    plain, fine = ShapeScenes(5), ShapeScenes(5, patterned=True)
    assert len(fine.class_names) == len(set(fine.class_names)) == len(fine.palette) == 26
    assert len(ShapeScenes(5, "instance", patterned=True).class_names) == 25
    for index in range(5):
        kinds, classes = plain[index].target.labels.long(), fine[index].target.labels.long()
        assert torch.equal(torch.where(classes > 0, (classes - 1) // 5 + 1, 0), kinds)
        seen = {
            fine.class_names[1 + item.label(True)].split(", ")[1] == item.texture.pattern
            for item in fine.scene(index).objects
        }
        assert seen == {True}
        objects = ShapeScenes(5, "instance", patterned=True)[index].target
        assert torch.equal(objects.labels // 5, ShapeScenes(5, "instance")[index].target.labels)
