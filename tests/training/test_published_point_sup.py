"""PointSup's three trainings by name, and trainings on labelled points from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend.cli import main
from pointrend.data.transforms import RandomCrop, RandomFlip, ResizeShortEdge, SamplePoints
from pointrend.models.instance import InstanceConfig
from pointrend.training.paper import TRAININGS
from pointrend.training.published import POINT_SUP, RECIPES, describe

AUGMENTED = "mask_rcnn_R_50_FPN_3x_point_sup_point_aug"
IMPLICIT = "implicit_pointrend_R_50_FPN_3x_point_sup_point_aug"


def test_they_are_the_published_configurations() -> None:
    assert set(POINT_SUP) == {"mask_rcnn_R_50_FPN_3x_point_sup", AUGMENTED, IMPLICIT}
    assert POINT_SUP.items() <= TRAININGS.items()
    for name, training in POINT_SUP.items():
        recipe, network = training.recipe, training.network
        assert (recipe.steps, recipe.milestones) == (270_000, (210_000, 250_000))
        assert (recipe.batch_size, recipe.learning_rate) == (16, 0.02)
        assert training.augmentation[:2] == (
            ResizeShortEdge((640, 672, 704, 736, 768, 800), 1333),
            RandomFlip(0.5),
        )
        assert training.augmentation[2:] == ((SamplePoints(5),) if name.endswith("aug") else ())
        assert training.pretrained == "MSRA/R-50"
        assert training.point_labels
        assert isinstance(network, InstanceConfig)
        assert not network.masks.train_on_predicted_boxes
        assert network.mask_head == ("implicit" if name == IMPLICIT else "conv28")
    rendered = POINT_SUP[IMPLICIT].network
    assert isinstance(rendered, InstanceConfig)
    assert (rendered.masks.num_points, rendered.masks.mask_size) == (784, 224)  # from 28x28 in three steps
    assert "5 of each object's labelled points" in "\n".join(describe(POINT_SUP[AUGMENTED]))


def test_point_augmentation_can_be_added_changed_and_taken_away() -> None:
    plain = RECIPES["pointrend_rcnn_R_50_FPN_1x_coco"]
    assert plain.with_sampled_points(3).with_sampled_points(4).augmentation[-1] == SamplePoints(4)
    assert POINT_SUP[AUGMENTED].with_sampled_points(0).augmentation == plain.augmentation
    with pytest.raises(ValueError, match="label maps have no objects"):
        RECIPES["pointrend_semantic_R_101_FPN_1x_cityscapes"].with_sampled_points(3)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images a split of one square each, with masks, and points beside those of the training part."""
    root = tmp_path_factory.mktemp("squares")
    ring = [[10, 10, 50, 10, 50, 50, 10, 50]]
    for split in ("train", "val"):
        (root / split).mkdir()
        records = []
        for number in (1, 2):
            pixels = np.zeros((64, 64, 3), dtype=np.uint8)
            pixels[10:50, 10:50] = 80 * number
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            record = {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 40, 40]}
            records.append(record | {"segmentation": ring})
        images = [{"id": n, "file_name": f"{n}.png", "height": 64, "width": 64} for n in (1, 2)]
        content = {
            "images": images,
            "annotations": records,
            "categories": [{"id": 1, "name": "square"}],
        }
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    assert main(["data", "sample-points", str(root / "instances_train.json"), "--points", "6"]) == 0
    return root


SMALL = [
    "--preset",
    "instance-mobilenet",
    "--size",
    "64",
    "--steps",
    "1",
    "--batch-size",
    "2",
    "--device",
    "cpu",
]


def test_a_training_on_points_is_scored_on_masks(squares: Path, tmp_path: Path) -> None:
    options = ["--data", f"{squares}:points", "--sample-points", "3", "--out", str(tmp_path)]
    assert main(["train", *SMALL, *options]) == 0
    assert "mask AP" in (tmp_path / "scores.json").read_text()


def test_masks_are_refused_where_points_are_learnt_from(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(squares), "--weights", "none", "--no-evaluate", "--out", str(tmp_path)]
    assert main(["train", "mask_rcnn_R_50_FPN_3x_point_sup", *options]) == 2
    assert "data sample-points" in capsys.readouterr().err


def test_points_without_masks_to_score_on_are_refused_before_the_training(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "points only"
    root.mkdir()
    (root / "images").symlink_to(squares / "train")
    source = squares / "instances_train_n6_v1_without_masks.json"
    (root / "labels.json").write_text(source.read_text())
    out = str(tmp_path / "out")
    assert main(["train", *SMALL, "--data", str(root), "--out", out]) == 2
    assert "--no-evaluate" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_crops_are_supported_unlike_in_the_original(squares: Path) -> None:
    from pointrend.data.build import open_dataset
    from pointrend.models.instance import InstanceSegmenter
    from pointrend.training.presets import preset

    data = open_dataset(f"{squares}:points", "train", transforms=RandomCrop(30, 30))
    model = InstanceSegmenter(preset("instance-mobilenet").config(data.class_names))
    samples = [data[index] for index in range(2)]
    assert any((one.target.points.labels == -1).any() for one in samples)
    losses = model.loss([one.image for one in samples], [one.target for one in samples])
    assert all(value.isfinite() for value in losses.values())
